# SPDX-License-Identifier: GPL-3.0-or-later
"""Short versions of the soaks of tests/soak/ that have no test file of their own, and their judges on made-up journals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.soak import cut_downloads, slow_subscribers
from tests.soak.crowd_judged import judge_jobs, judge_vitals
from tests.soak.fifty_clients import PROCESSES, Soak


@pytest.mark.slow
def test_clients_that_come_and_go_lose_no_job(tmp_path: Path) -> None:
    soak = Soak(tmp_path, 2 * PROCESSES, 0.5, 4.0, 1)
    try:
        soak.run(15.0, [])
        listed = soak.finish(calm_s=2.0)
    finally:
        soak.close()
    told = soak.figures(listed)
    assert told["faults"] == []
    assert told["tickets"] == told["jobs"] == sum(told["ended"].values()) >= PROCESSES
    assert told["meshes fetched"] > 0 and soak.crowd.killed + soak.crowd.stopped > 0


@pytest.mark.slow
def test_interrupted_downloads_resume(tmp_path: Path) -> None:
    told, faults = cut_downloads.soak(tmp_path, 12_000_000)
    assert faults == []
    assert told["pieces in flight, most"] == 10
    assert len(told["cut at 10%, 50%, 90%"]["went on after s"]) >= 2


@pytest.mark.slow
def test_slow_subscribers_get_the_latest_preview(tmp_path: Path) -> None:
    told, faults = slow_subscribers.soak(tmp_path, 5, ["nobody", "never read"], 5.0)
    assert faults == []
    assert told["phases"]["never read"][0]["pictures on reading"] > 2


def intends(ticket: str) -> dict[str, Any]:
    return {"what": "intends", "ticket": ticket, "seed": 0, "steps": 6}


def answered(ticket: str, job: str) -> dict[str, Any]:
    return {"what": "answered", "ticket": ticket, "job": job}


def test_judge_detects_lost_doubled_and_unknown_jobs() -> None:
    fine = [intends("t1"), answered("t1", "a"), answered("t1", "a")]
    assert judge_jobs(fine, {"a": "succeeded"}, {})["lost"] == judge_jobs(fine, {"a": "succeeded"}, {})["doubled"] == []
    assert judge_jobs([*fine, intends("t2")], {"a": "succeeded"}, {})["lost"] == ["t2"]
    assert judge_jobs(fine, {}, {})["lost"] == ["a"]
    assert judge_jobs([*fine, {"what": "forgets", "ticket": "t1", "job": "a"}], {}, {})["lost"] == []
    assert judge_jobs(fine, {"a": "running"}, {})["lost"] == ["a"], "it never ended"
    assert judge_jobs([*fine, answered("t1", "b")], {"a": "succeeded", "b": "succeeded"}, {})["doubled"] == ["t1"]
    assert judge_jobs(fine, {"a": "succeeded", "c": "succeeded"}, {})["doubled"] == ["c"]
    assert judge_jobs(fine, {"a": "succeeded"}, {"a": [(1, 1), (1, 1)]})["doubled"] == ["a had attempts [1, 1]"]
    mesh = {"what": "fetched", "state": "succeeded", "seed": 0, "steps": 6, "job": "a", "ticket": "t1"}
    assert judge_jobs([*fine, {**mesh, "sha": "x"}, {**mesh, "sha": "y"}], {"a": "succeeded"}, {})["faults"] != []


def test_judge_detects_growth_but_not_noise() -> None:
    def samples(growth_mb: float, fds: float) -> list[dict[str, float]]:
        return [
            {"at": 10.0 * i, "server rss_mb": 250 + growth_mb * i / 360 + (i % 3), "server fds": 70 + fds * i / 360, "server threads": 3}
            for i in range(360)
        ]  # fmt: skip

    assert judge_vitals(samples(0.0, 0.0))[1] == []
    assert "rss" in judge_vitals(samples(60.0, 0.0))[1][0]
    assert "fds" in judge_vitals(samples(0.0, 30.0))[1][0]
    told, _ = judge_vitals(samples(36.0, 0.0))
    assert told["server rss_mb"]["slope an hour in the last two thirds"] == pytest.approx(36.0, abs=1.5)
