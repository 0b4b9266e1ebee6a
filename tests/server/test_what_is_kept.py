# SPDX-License-Identifier: GPL-3.0-or-later
"""What a state folder keeps and what is cleared away from it, whatever the clock says: results, pins, stray folders, an older ledger."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from dreamwright.backend.server.jobs.job_store import SCHEMA_VERSION
from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.workers.dispatcher import SWEEP_S
from dreamwright.backend.server.workers.worker_protocol import JobFinished, ProgressReport
from dreamwright.shared.messages import FetchChunk, PinJob, Subscribe
from tests.testing.in_memory_server import InMemoryServer

DAY = 86_400.0


def test_results_go_when_kept_long_enough_and_subscribers_hear_of_it(tmp_path: Path) -> None:
    in_memory_server = InMemoryServer(tmp_path, policy=Policy(keep_days=1))
    jobs = {what: in_memory_server.submit() for what in ("fetched", "unfetched", "pinned", "failed")}
    in_memory_server.step()
    for what in ("fetched", "unfetched", "pinned"):
        in_memory_server.finish(jobs[what])
    in_memory_server.report(JobFinished, jobs["failed"], "failed", "no luck", False)
    assert in_memory_server.request(FetchChunk(jobs["fetched"], "mesh", 0, 2)).data == b"me"
    assert not in_memory_server.job(jobs["fetched"]).fetched, "half is not all"
    in_memory_server.request(FetchChunk(jobs["fetched"], "mesh", 2, 2))
    assert in_memory_server.job(jobs["fetched"]).fetched
    in_memory_server.request(PinJob(jobs["pinned"], True))
    in_memory_server.step(DAY - 2 * SWEEP_S)
    assert set(in_memory_server.ledger.entries) == set(jobs.values())
    in_memory_server.request(Subscribe())
    in_memory_server.step(4 * SWEEP_S)
    assert set(in_memory_server.ledger.entries) == {jobs["unfetched"], jobs["pinned"]}
    assert (
        not in_memory_server.ledger.job_folder(jobs["fetched"]).exists()
        and in_memory_server.ledger.job_folder(jobs["pinned"]).exists()
    )
    assert {event.job for event in in_memory_server.events[b"ada"] if type(event).__name__ == "JobDeleted"} == {
        jobs["fetched"],
        jobs["failed"],
    }
    in_memory_server.step(DAY)
    in_memory_server.step(DAY)
    assert set(in_memory_server.ledger.entries) == {jobs["pinned"]}


def test_a_user_pins_so_many_and_no_more(tmp_path: Path) -> None:
    in_memory_server = InMemoryServer(tmp_path, policy=Policy(pinned_per_user=1))
    first, second = in_memory_server.submit(), in_memory_server.submit()
    in_memory_server.request(PinJob(first, True))
    in_memory_server.request(PinJob(first, True))
    assert "allowed are 1 a user; unpin one" in in_memory_server.refusal(PinJob(second, True)).message
    in_memory_server.request(PinJob(first, False))
    assert in_memory_server.request(PinJob(second, True)).job.pinned


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_clock_that_jumps_by_an_hour_changes_no_decision(jump_s: float, tmp_path: Path) -> None:
    """The same hour of work with and without a jump of the wall clock in it: same jobs, states, places, times, events."""

    def hour(folder: Path, jump: float) -> list[Any]:
        in_memory_server = InMemoryServer(folder, policy=Policy(keep_days=0.05))
        seen: list[Any] = []
        in_memory_server.request(Subscribe())
        jobs = [in_memory_server.submit() for _ in range(4)]
        in_memory_server.step()
        for minute in range(60):
            if minute == 20:
                in_memory_server.wall += jump
            if minute % 15 == 10:
                in_memory_server.report(ProgressReport, jobs[minute // 15], 1, 400, 1.0, 399.0)
                in_memory_server.report(ProgressReport, jobs[minute // 15], 100, 400, 100.0, 300.0)
            if minute % 15 == 14:
                in_memory_server.finish(jobs[minute // 15])
            in_memory_server.step(60.0)
            told = [in_memory_server.ledger.entries.get(job) for job in jobs]
            seen.append(
                [
                    e and (e.state, e.summary.queue_position, e.summary.ready_low_s, e.summary.ready_high_s, e.attempts)
                    for e in told
                ]
            )
        return [seen, len(in_memory_server.events[b"ada"])]

    assert hour(tmp_path / "jumped", jump_s) == hour(tmp_path / "steady", 0.0)


def test_folders_of_jobs_that_nobody_knows_are_cleared_away_at_the_start_and_others_are_not(
    in_memory_server: InMemoryServer,
) -> None:
    kept = in_memory_server.submit()
    jobs = in_memory_server.folder / "jobs"
    for name in (kept, "0123456789abcdef", "somebody's own"):
        (jobs / name).mkdir(parents=True, exist_ok=True)
    in_memory_server.kill()
    in_memory_server.open()
    assert {path.name for path in jobs.iterdir()} == {kept, "somebody's own"}


def test_a_ledger_of_version_1_is_taken_over(tmp_path: Path) -> None:
    in_memory_server = InMemoryServer(tmp_path)
    name = in_memory_server.submit("bob")
    in_memory_server.kill()
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as old:
        old.executescript(
            "ALTER TABLE jobs DROP COLUMN turn; ALTER TABLE jobs DROP COLUMN ended_age; DROP TABLE turns; DROP TABLE durations;"
        )
        old.execute("PRAGMA user_version=1")
        new = ["owner", "priority", "attempt", "device", "ready_low_s", "ready_high_s", "pinned", "fetched"]
        old.execute(f"UPDATE jobs SET summary = json_remove(summary, {', '.join(repr('$.' + field) for field in new)})")
    old.close()
    in_memory_server.open()
    assert (
        in_memory_server.job(name).owner,
        in_memory_server.job(name).state,
        in_memory_server.job(name).queue_position,
    ) == ("bob", "queued", 1)
    assert in_memory_server.ledger._db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION
