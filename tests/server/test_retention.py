# SPDX-License-Identifier: GPL-3.0-or-later
"""How long results are kept: ages by the server's own clock, size limits, pins, orphaned folders and old stores."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.errors import CheckpointError, ConfigError
from dreamwright.backend.server.jobs.job_record import DERIVED, from_row, to_row
from dreamwright.backend.server.jobs.retention import DAY_S, MonotonicAge, RetainedJob, expired
from dreamwright.backend.server.policy import GIGABYTE, Policy, make_policy, policy_settings, stated_bounds
from dreamwright.backend.server.workers.dispatcher import CLEANUP_INTERVAL_S
from dreamwright.backend.server.workers.worker_protocol import JobFinished, ProgressReport
from dreamwright.shared.messages import FetchChunk, JobSummary, PinJob, Subscribe
from tests.testing.in_memory_server import InMemoryServer

WEEK = Policy(keep_days=7, keep_gb=1.0)
KEPT = st.lists(
    st.builds(
        RetainedJob,
        st.uuids().map(str),
        st.floats(0, 100 * DAY_S),
        st.integers(0, GIGABYTE),
        st.booleans(),
        st.booleans(),
    ),
    max_size=12,
)


def test_unfetched_results_are_kept_twice_as_long() -> None:
    ages = (6.9, 7.1, 13.9, 14.1)
    fetched = [RetainedJob(f"f{age}", age * DAY_S, 1, True, False) for age in ages]
    unfetched = [RetainedJob(f"u{age}", age * DAY_S, 1, False, False) for age in ages]
    assert expired(fetched + unfetched, WEEK) == ["f13.9", "f14.1", "f7.1", "u14.1"]


def test_oldest_fetched_results_are_removed_first() -> None:
    third = GIGABYTE * 4 // 10
    kept = [
        RetainedJob("old", 3.0, third, True, False),
        RetainedJob("new", 1.0, third, True, False),
        RetainedJob("older unfetched", 9.0, third, False, False),
    ]
    assert expired(kept, WEEK) == ["old"]
    assert expired([*kept, RetainedJob("more", 0.5, third, True, False)], WEEK) == ["new", "old"]


@given(KEPT)
def test_pinned_jobs_are_never_removed(kept: list[RetainedJob]) -> None:
    gone = set(expired(kept, WEEK))
    assert not gone & {job.job for job in kept if job.pinned}
    left = sum(job.size for job in kept if job.job not in gone and not job.pinned)
    assert left <= WEEK.keep_gb * GIGABYTE


@given(KEPT)
def test_recent_results_within_the_size_are_kept(kept: list[RetainedJob]) -> None:
    generous = Policy(keep_days=101, keep_gb=1000.0)
    assert expired(kept, generous) == []


class Clocks:
    """A wall clock that can be set and a monotonic one that cannot."""

    def __init__(self) -> None:
        self.wall_s, self.monotonic_s = 1.8e9, 50.0

    def pass_time(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds

    def age(self, before_s: float = 0.0, saved_at: float = 0.0) -> MonotonicAge:
        return MonotonicAge(before_s, saved_at, lambda: self.wall_s, lambda: self.monotonic_s)


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 40 * DAY_S, -40 * DAY_S])
def test_wall_clock_jumps_age_nothing(jump_s: float) -> None:
    clocks = Clocks()
    age = clocks.age()
    clocks.pass_time(100.0)
    clocks.wall_s += jump_s
    assert age.now_s() == pytest.approx(100.0)
    again = clocks.age(*age.to_save())
    assert again.now_s() == pytest.approx(100.0), "nor does it once the server is restarted with the clock as it is"


def test_time_between_starts_counts_up_to_a_day() -> None:
    clocks = Clocks()
    saved = clocks.age().to_save()
    clocks.pass_time(3600.0)
    assert clocks.age(*saved).now_s() == pytest.approx(3600.0)
    clocks.wall_s -= 7200.0
    assert clocks.age(*saved).now_s() == 0.0
    clocks.wall_s += 400 * DAY_S
    assert clocks.age(*saved).now_s() == DAY_S


def test_policy_numbers_have_bounds() -> None:
    fields = {field.name for field in dataclasses.fields(Policy)}
    assert {limit.key for limit in policy_settings()} == fields <= set(stated_bounds(Policy()))
    for limit in policy_settings():
        name, (low, high) = limit.key, limit.bounds
        for value in (low - 1, high + 1, float("nan"), 1e308):
            with pytest.raises(
                ConfigError, match=f"{name} is .*allowed is .*change it with --{name.replace('_', '-')}"
            ):
                make_policy(**{name: value})
    assert make_policy(keep_days=None, keep_gb=2.0) == Policy(keep_gb=2.0)


DAY = 86_400.0


def test_expired_results_are_removed_and_announced(tmp_path: Path) -> None:
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
    in_memory_server.step(DAY - 2 * CLEANUP_INTERVAL_S)
    assert set(in_memory_server.store.records) == set(jobs.values())
    in_memory_server.request(Subscribe())
    in_memory_server.step(4 * CLEANUP_INTERVAL_S)
    assert set(in_memory_server.store.records) == {jobs["unfetched"], jobs["pinned"]}
    assert (
        not in_memory_server.store.job_folder(jobs["fetched"]).exists()
        and in_memory_server.store.job_folder(jobs["pinned"]).exists()
    )
    assert {event.job for event in in_memory_server.events[b"ada"] if type(event).__name__ == "JobDeleted"} == {
        jobs["fetched"],
        jobs["failed"],
    }
    in_memory_server.step(DAY)
    in_memory_server.step(DAY)
    assert set(in_memory_server.store.records) == {jobs["pinned"]}


def test_pins_per_user_are_limited(tmp_path: Path) -> None:
    in_memory_server = InMemoryServer(tmp_path, policy=Policy(pinned_per_user=1))
    first, second = in_memory_server.submit(), in_memory_server.submit()
    in_memory_server.request(PinJob(first, True))
    in_memory_server.request(PinJob(first, True))
    assert "allowed are 1 a user; unpin one" in in_memory_server.refusal(PinJob(second, True)).message
    in_memory_server.request(PinJob(first, False))
    assert in_memory_server.request(PinJob(second, True)).job.pinned


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_clock_jump_of_an_hour_changes_nothing(jump_s: float, tmp_path: Path) -> None:
    """The same hour of work with and without a jump of the wall clock in it: same jobs, states, places, times,
    events.
    """

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
            records = [in_memory_server.store.records.get(job) for job in jobs]
            seen.append(
                [
                    e and (e.state, e.summary.queue_position, e.summary.ready_low_s, e.summary.ready_high_s, e.attempts)
                    for e in records
                ]
            )
        return [seen, len(in_memory_server.events[b"ada"])]

    assert hour(tmp_path / "jumped", jump_s) == hour(tmp_path / "steady", 0.0)


def test_orphaned_job_folders_are_removed_at_start(
    in_memory_server: InMemoryServer,
) -> None:
    kept = in_memory_server.submit()
    jobs = in_memory_server.folder / "jobs"
    for name in (kept, "0123456789abcdef", "somebody's own"):
        (jobs / name).mkdir(parents=True, exist_ok=True)
    in_memory_server.kill()
    in_memory_server.open()
    assert {path.name for path in jobs.iterdir()} == {kept, "somebody's own"}


@pytest.mark.parametrize(
    "summary", ["{", "[]", "null", "{}", '{"job": 5}', '{"a field of another version": 1}'], ids=repr
)
def test_damaged_row_is_named(tmp_path: Path, summary: str) -> None:
    in_memory_server = InMemoryServer(tmp_path)
    name = in_memory_server.submit("bob")
    in_memory_server.kill()
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as database:
        database.execute("UPDATE jobs SET summary = ?", (summary,))
    with pytest.raises(CheckpointError, match=f"job '{name}' is damaged.*--state"):
        in_memory_server.open()


def test_row_holds_no_derived_field_and_gives_the_same_job_back(tmp_path: Path) -> None:
    in_memory_server = InMemoryServer(tmp_path)
    names = [in_memory_server.submit("bob", prompt=f"a {color} chair") for color in ("red", "blue", "green")]
    before = [in_memory_server.store.records[name] for name in names]
    for record in before:
        saved = json.loads(to_row(record)[-1])
        assert not set(saved) & set(DERIVED) and set(saved) | set(DERIVED) == set(JobSummary.__dataclass_fields__)
        positionless = replace(record, summary=replace(record.summary, **DERIVED))
        assert from_row(to_row(record)) == positionless
    in_memory_server.kill()
    in_memory_server.open()
    after = [in_memory_server.store.records[name] for name in names]
    assert [record.summary.queue_position for record in after] == [record.summary.queue_position for record in before]
