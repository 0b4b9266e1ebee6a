# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of a list on a server that is full, refuses, loses the answer or the mesh; a thousand rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("bpy")

from dreamwright.shared.messages import Refusal, SubmitJob
from dreamwright.shared.prompt_list import PromptRow
from tests.testing.addon_session import SessionBench, addon_module


def make_list(bench: SessionBench, count: int, here: set[str] | None = None, **how: Any) -> Any:
    module = addon_module("dream_list")
    rows = [PromptRow(number, "a red chair", number) for number in range(1, count + 1)]
    props = module.listed_props(rows, "", "starter", "quick", {"mesh.height_m": 1.0})
    known = set() if here is None else here
    return module.DreamList("props", props, known.__contains__, clock=lambda: bench.ahead, **how)


def run_until(bench: SessionBench, found: Any, condition: Any) -> None:
    """Step the list as the add-on's timer does; every mesh that arrives is imported at once."""

    def ticked() -> bool:
        found.step(bench.session)
        for event in bench.events:
            if type(event).__name__ == "MeshDownloaded" and (prop := found.find(event.job.job)):
                prop.state = "done"
        bench.events.clear()
        return bool(condition())

    bench.settle(ticked, 30)


def open_jobs(bench: SessionBench) -> int:
    return sum(job.state in ("queued", "running") for job in bench.server.jobs.values())


def test_full_server_gets_the_rows_later(bench: SessionBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota of two jobs: rows that are refused wait, and all are made once."""
    accept = bench.server.submit

    def submit(request: SubmitJob) -> Any:
        return Refusal("too-many", "2 jobs are allowed") if open_jobs(bench) >= 2 else accept(request)

    monkeypatch.setattr(bench.server, "submit", submit)
    bench.connect()
    found = make_list(bench, 5)
    run_until(bench, found, lambda: [prop.state for prop in found.props].count("waiting") == 3)
    assert open_jobs(bench) == 2
    bench.server.pace = 40

    def is_done() -> bool:
        bench.ahead += 1.0  # the pause after a refusal passes
        return bool(found.is_done)

    run_until(bench, found, is_done)
    assert found.summary() == "5 of 5 props" and len(bench.server.jobs) == 5


def test_refused_and_deleted_rows_fail_with_their_reason(bench: SessionBench) -> None:
    bench.server.faults.refuse_submit = "no such\nmodel"
    bench.connect()
    found = make_list(bench, 1)
    run_until(bench, found, lambda: found.is_done)
    assert [prop.reason for prop in found.failures] == ["no such model"]
    bench.server.faults.refuse_submit = ""
    found = make_list(bench, 1)
    run_until(bench, found, lambda: bool(found.props[0].job))
    del bench.session.jobs[found.props[0].job]
    run_until(bench, found, lambda: found.is_done)
    assert "deleted" in found.failures[0].reason


def test_lost_answers_make_no_second_job(bench: SessionBench) -> None:
    """The server made the jobs and its answers were lost; a later session starts the same list."""
    bench.connect()
    bench.server.faults.lose_replies = 2
    found = make_list(bench, 2)
    run_until(bench, found, lambda: len(bench.server.jobs) == 2)
    bench.session.disconnect()
    bench.session.submissions.requests.clear()
    bench.server.pace = 40
    bench.connect()
    again = make_list(bench, 2)
    run_until(bench, again, lambda: again.is_done)
    assert again.summary() == "2 of 2 props" and len(bench.server.jobs) == 2


def test_mesh_that_cannot_be_had_fails_its_row(bench: SessionBench) -> None:
    bench.server.pace, bench.server.faults.damage_chunks = 40, 1000
    bench.connect()
    found = make_list(bench, 1)
    run_until(bench, found, lambda: found.is_done)
    assert "could not be downloaded" in found.failures[0].reason and found.props[0].tries == 3


def test_props_that_are_here_are_not_downloaded(bench: SessionBench) -> None:
    bench.server.pace = 40
    bench.connect()
    here: set[str] = set()
    found = make_list(bench, 1, here)
    run_until(bench, found, lambda: found.is_done)
    here.add(found.props[0].job)
    again = make_list(bench, 1, here)
    run_until(bench, again, lambda: again.is_done)
    assert again.props[0].job == found.props[0].job and again.props[0].tries == 0


def test_a_thousand_rows_are_sent_a_few_at_a_time(bench: SessionBench) -> None:
    bench.connect()
    found = make_list(bench, 1000)
    run_until(bench, found, lambda: open_jobs(bench) == 20)
    for _ in range(20):
        run_until(bench, found, lambda: True)
    assert open_jobs(bench) == 20 and found.share(bench.session) < 0.02
    found.stop()
    run_until(bench, found, lambda: found.is_stopped and open_jobs(bench) == 0)
    assert len(bench.server.jobs) == 20 and not bench.session.pending


def test_tickets_follow_from_the_request() -> None:
    ticket_of = addon_module("dream_list").ticket_of
    request = SubmitJob("", "a red chair", "", "starter", "quick", 1, {"b": 1, "a": 2.5})
    same = replace(request, settings={"a": 2.5, "b": 1})
    assert ticket_of(request, 1) == ticket_of(same, 1) != ticket_of(request, 2) and len(ticket_of(request, 1)) <= 64
    others = [replace(request, seed=2), replace(request, prompt="a chair"), replace(request, settings={})]
    assert len({ticket_of(one, 1) for one in [request, *others]}) == 4
