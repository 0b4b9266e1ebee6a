# SPDX-License-Identifier: GPL-3.0-or-later
"""Short versions of the soaks of tests/soak/ that have no test file of their own, and their checks on constructed
journals.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.soak import cut_downloads, slow_subscribers, web_pages
from tests.soak.fifty_clients import PROCESSES, Soak
from tests.soak.journal_checks import check_growth, check_jobs


@pytest.mark.slow
def test_clients_that_come_and_go_lose_no_job(tmp_path: Path) -> None:
    soak = Soak(tmp_path, 2 * PROCESSES, 0.5, 4.0, 1)
    try:
        soak.run(15.0, [])
        listed = soak.finish(settle_s=2.0)
    finally:
        soak.close()
    figures = soak.figures(listed)
    assert figures["faults"] == []
    assert figures["tickets"] == figures["jobs"] == sum(figures["ended"].values()) >= PROCESSES
    assert figures["meshes fetched"] > 0 and soak.clients.killed + soak.clients.stopped > 0


@pytest.mark.slow
def test_interrupted_downloads_resume(tmp_path: Path) -> None:
    figures, faults = cut_downloads.soak(tmp_path, 12_000_000)
    assert faults == []
    assert figures["chunks in flight, max"] == 10
    assert len(figures["cut at 10%, 50%, 90%"]["resumed after s"]) >= 2


@pytest.mark.slow
def test_slow_subscribers_get_the_latest_preview(tmp_path: Path) -> None:
    figures, faults = slow_subscribers.soak(tmp_path, 5, ["no subscribers", "not reading"], 5.0)
    assert faults == []
    assert figures["phases"]["not reading"][0]["previews after reading starts"] > 2


def planned(ticket: str) -> dict[str, Any]:
    return {"what": "planned", "ticket": ticket, "seed": 0, "steps": 6}


def answered(ticket: str, job: str) -> dict[str, Any]:
    return {"what": "answered", "ticket": ticket, "job": job}


def test_job_check_detects_lost_duplicate_and_unknown_jobs() -> None:
    fine = [planned("t1"), answered("t1", "a"), answered("t1", "a")]
    assert (
        check_jobs(fine, {"a": "succeeded"}, {})["lost"] == check_jobs(fine, {"a": "succeeded"}, {})["duplicate"] == []
    )
    assert check_jobs([*fine, planned("t2")], {"a": "succeeded"}, {})["lost"] == ["t2"]
    assert check_jobs(fine, {}, {})["lost"] == ["a"]
    assert check_jobs([*fine, {"what": "delete requested", "ticket": "t1", "job": "a"}], {}, {})["lost"] == []
    assert check_jobs(fine, {"a": "running"}, {})["lost"] == ["a"], "it never ended"
    assert check_jobs([*fine, answered("t1", "b")], {"a": "succeeded", "b": "succeeded"}, {})["duplicate"] == ["t1"]
    assert check_jobs(fine, {"a": "succeeded", "c": "succeeded"}, {})["duplicate"] == ["c"]
    assert check_jobs(fine, {"a": "succeeded"}, {"a": [(1, 1), (1, 1)]})["duplicate"] == ["a had attempts [1, 1]"]
    mesh = {"what": "fetched", "state": "succeeded", "seed": 0, "steps": 6, "job": "a", "ticket": "t1"}
    assert check_jobs([*fine, {**mesh, "sha": "x"}, {**mesh, "sha": "y"}], {"a": "succeeded"}, {})["faults"] != []


def test_growth_check_ignores_noise() -> None:
    def samples(growth_mb: float, fds: float) -> list[dict[str, float]]:
        return [
            {
                "at": 10.0 * i,
                "server rss_mb": 250 + growth_mb * i / 360 + (i % 3),
                "server fds": 70 + fds * i / 360,
                "server threads": 3,
            }
            for i in range(360)
        ]

    assert check_growth(samples(0.0, 0.0))[1] == []
    assert "rss" in check_growth(samples(60.0, 0.0))[1][0]
    assert "fds" in check_growth(samples(0.0, 30.0))[1][0]
    figures, _ = check_growth(samples(36.0, 0.0))
    # A sawtooth of 0 to 2 MB (deviation 0.82) on 240 samples over 0.67 h: the slope's standard error is
    # 0.82 sqrt(12 / 240) / 0.67 = 0.27 MB an hour; five of them.
    assert figures["server rss_mb"]["slope per hour in the last two thirds"] == pytest.approx(36.0, abs=1.5)


@pytest.mark.slow
def test_many_pages_are_open_or_refused_in_one_sentence(tmp_path: Path) -> None:
    figures, faults = web_pages.soak(tmp_path, 20, 3, 1.0)
    assert faults == []
    assert figures["pages"]["by"] == ["503: 6 pages of your session are open already; close some, then reload"]
