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
from dreamwright.backend.server.workers.worker_protocol import Ended, Stepped
from dreamwright.shared.messages import Fetch, Pin, Subscribe
from tests.testing.in_memory_server import Yard, yard  # noqa: F401 (fixture)

DAY = 86_400.0


def test_results_go_when_kept_long_enough_and_subscribers_hear_of_it(tmp_path: Path) -> None:
    yard = Yard(tmp_path, policy=Policy(keep_days=1))
    jobs = {what: yard.submit() for what in ("fetched", "unfetched", "pinned", "failed")}
    yard.work()
    for what in ("fetched", "unfetched", "pinned"):
        yard.finish(jobs[what])
    yard.report(Ended, jobs["failed"], "failed", "no luck", False)
    assert yard.ask(Fetch(jobs["fetched"], "mesh", 0, 2)).data == b"me"
    assert not yard.job(jobs["fetched"]).fetched, "half is not all"
    yard.ask(Fetch(jobs["fetched"], "mesh", 2, 2))
    assert yard.job(jobs["fetched"]).fetched
    yard.ask(Pin(jobs["pinned"], True))
    yard.work(DAY - 2 * SWEEP_S)
    assert set(yard.ledger.entries) == set(jobs.values())
    yard.ask(Subscribe())
    yard.work(4 * SWEEP_S)
    assert set(yard.ledger.entries) == {jobs["unfetched"], jobs["pinned"]}
    assert not yard.ledger.job_folder(jobs["fetched"]).exists() and yard.ledger.job_folder(jobs["pinned"]).exists()
    assert {event.job for event in yard.events[b"ada"] if type(event).__name__ == "JobForgotten"} == {
        jobs["fetched"],
        jobs["failed"],
    }
    yard.work(DAY)
    yard.work(DAY)
    assert set(yard.ledger.entries) == {jobs["pinned"]}


def test_a_user_pins_so_many_and_no_more(tmp_path: Path) -> None:
    yard = Yard(tmp_path, policy=Policy(pinned_per_user=1))
    first, second = yard.submit(), yard.submit()
    yard.ask(Pin(first, True))
    yard.ask(Pin(first, True))
    assert "allowed are 1 a user; unpin one" in yard.refused(Pin(second, True)).message
    yard.ask(Pin(first, False))
    assert yard.ask(Pin(second, True)).job.pinned


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_clock_that_jumps_by_an_hour_changes_no_decision(jump_s: float, tmp_path: Path) -> None:
    """The same hour of work with and without a jump of the wall clock in it: same jobs, states, places, times, events."""

    def hour(folder: Path, jump: float) -> list[Any]:
        yard = Yard(folder, policy=Policy(keep_days=0.05))
        seen: list[Any] = []
        yard.ask(Subscribe())
        jobs = [yard.submit() for _ in range(4)]
        yard.work()
        for minute in range(60):
            if minute == 20:
                yard.wall += jump
            if minute % 15 == 10:
                yard.report(Stepped, jobs[minute // 15], 1, 400, 1.0, 399.0)
                yard.report(Stepped, jobs[minute // 15], 100, 400, 100.0, 300.0)
            if minute % 15 == 14:
                yard.finish(jobs[minute // 15])
            yard.work(60.0)
            told = [yard.ledger.entries.get(job) for job in jobs]
            seen.append(
                [
                    e and (e.state, e.summary.queue_place, e.summary.ready_low_s, e.summary.ready_high_s, e.attempts)
                    for e in told
                ]
            )
        return [seen, len(yard.events[b"ada"])]

    assert hour(tmp_path / "jumped", jump_s) == hour(tmp_path / "steady", 0.0)


def test_folders_of_jobs_that_nobody_knows_are_cleared_away_at_the_start_and_others_are_not(yard: Yard) -> None:
    kept = yard.submit()
    jobs = yard.folder / "jobs"
    for name in (kept, "0123456789abcdef", "somebody's own"):
        (jobs / name).mkdir(parents=True, exist_ok=True)
    yard.kill()
    yard.open()
    assert {path.name for path in jobs.iterdir()} == {kept, "somebody's own"}


def test_a_ledger_of_version_1_is_taken_over(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    name = yard.submit("bob")
    yard.kill()
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as old:
        old.executescript(
            "ALTER TABLE jobs DROP COLUMN turn; ALTER TABLE jobs DROP COLUMN ended_age; DROP TABLE turns; DROP TABLE paces;"
        )
        old.execute("PRAGMA user_version=1")
        new = ["owner", "priority", "attempt", "device", "ready_low_s", "ready_high_s", "pinned", "fetched"]
        old.execute(f"UPDATE jobs SET summary = json_remove(summary, {', '.join(repr('$.' + field) for field in new)})")
    old.close()
    yard.open()
    assert (yard.job(name).owner, yard.job(name).state, yard.job(name).queue_place) == ("bob", "queued", 1)
    assert yard.ledger._db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION
