# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker that says nothing for too long, or does not stop when told to, is ended; one that is only slow is not."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.workers import dispatcher
from dreamwright.backend.server.workers.heartbeat import (
    LONG_STAGES,
    MESH_TO_STOP,
    SLOWEST_STEPS,
    STALL_S,
    Vigil,
    grace_s,
    patience_s,
)
from dreamwright.backend.server.workers.local_runner import Died
from dreamwright.backend.server.workers.worker_protocol import Ended, Noted, Stepped
from dreamwright.shared.messages import Cancel
from tests.testing.in_memory_server import Yard

POLICY = Policy(hang_minutes=1.0, cancel_seconds=20.0)


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path / "state", policy=POLICY)


def begun(yard: Yard, step: int = 0) -> str:
    name = yard.submit()
    yard.work()
    for done in range(1, step + 1):
        yard.work(1.0)
        yard.report(Stepped, name, done, 100, float(done), 1.0)
    return name


def pass_time(yard: Yard, seconds: float) -> None:
    """As a server does that looks every second."""
    while seconds > 0:
        yard.work(min(1.0, seconds))
        seconds -= 1.0


def die(yard: Yard, name: str) -> None:
    yard.hands.told.append(Died(name, -signal.SIGKILL))
    yard.work()


def test_between_two_steps_it_may_say_nothing_for_the_stated_time_and_no_longer(yard: Yard) -> None:
    name = begun(yard, 3)
    pass_time(yard, 60.0)
    assert not yard.hands.killed
    pass_time(yard, 1.5)
    assert set(yard.hands.killed) == {name}
    die(yard, name)
    job = yard.job(name)
    assert (job.state, job.attempt, job.cause) == ("running", 2, "hang"), "it is given out again at once"
    assert yard.ledger.entries[name].attempts == 1


def test_the_third_hang_in_a_row_ends_the_job_with_advice(yard: Yard) -> None:
    name = begun(yard)
    for _ in range(3):
        pass_time(yard, 60.0 * LONG_STAGES + 2.0)
        die(yard, name)
    job = yard.job(name)
    assert (job.state, job.cause) == ("failed", "hang")
    assert (
        "said nothing for 360 s while loading" in job.message
        and "3 times" in job.message
        and "--hang-minutes" in job.message
    )


def test_loading_and_the_mesh_may_take_longer_than_a_step(yard: Yard) -> None:
    name = begun(yard)
    pass_time(yard, 60.0 * LONG_STAGES - 1.0)
    yard.report(Noted, name, "", "loading the model")
    pass_time(yard, 60.0 * LONG_STAGES - 1.0)
    assert not yard.hands.killed, "each word counts"
    yard.report(Stepped, name, 100, 100, 5.0, 0.0)
    pass_time(yard, 60.0 * LONG_STAGES - 1.0)
    assert not yard.hands.killed, "after its last step it makes the mesh"
    pass_time(yard, 2.5)
    assert name in yard.hands.killed


def test_a_run_of_slow_steps_has_ten_of_them_before_it_counts_as_hung(yard: Yard) -> None:
    name = begun(yard, 1)
    for step in (2, 3):
        pass_time(yard, 40.0)
        yard.report(Stepped, name, step, 100, 40.0 * step, 1.0)
    pass_time(yard, SLOWEST_STEPS * 40.0 - 2.0)
    assert not yard.hands.killed
    pass_time(yard, 4.0)
    assert name in yard.hands.killed


def test_time_in_which_the_server_itself_was_held_up_counts_for_nobody(yard: Yard) -> None:
    name = begun(yard, 3)
    yard.work(10_000.0)  # stopped by SIGSTOP, say; whatever the worker said meanwhile has not been read yet
    yard.work(1.0)
    assert not yard.hands.killed
    pass_time(yard, 61.0)
    assert name in yard.hands.killed


def test_a_word_that_waits_to_be_read_is_heard_before_anybody_is_ended(yard: Yard) -> None:
    name = begun(yard, 3)
    pass_time(yard, 59.5)
    yard.now += 1.5
    yard.report(Stepped, name, 4, 100, 4.0, 1.0)
    assert not yard.hands.killed


def test_a_job_that_ended_while_its_worker_was_being_ended_keeps_its_end(yard: Yard) -> None:
    name = begun(yard, 3)
    pass_time(yard, 62.0)
    assert name in yard.hands.killed
    yard.finish(name)
    die(yard, "")
    assert yard.job(name).state == "succeeded" and yard.job(name).cause == ""


@pytest.mark.parametrize(("step", "stage", "grace"), [(0, "loading", 20.0), (3, "stepping", 20.0)])
def test_a_cancelled_job_that_does_not_stop_in_its_grace_is_ended_whatever_it_says(
    step: int, stage: str, grace: float, yard: Yard
) -> None:
    name = begun(yard, step)
    assert yard.ask(Cancel(name)).job.state == "cancelling"
    yard.work()
    for _ in range(int(grace)):
        yard.work(1.0)
        yard.report(Noted, name, "", "still here")
    assert not yard.hands.killed
    assert yard.ask(Cancel(name)).job.state == "cancelling", "twice is once: it gains no time"
    pass_time(yard, 1.5)
    assert name in yard.hands.killed
    die(yard, name)
    job = yard.job(name)
    assert (
        job.state == "cancelled"
        and f"did not stop within 20 s while {stage}" in job.message
        and "no mesh" in job.message
    )
    other = yard.submit()
    yard.work()
    assert yard.job(other).state == "running", "its device is free"


def test_the_mesh_of_a_cancelled_job_has_more_time_since_its_artist_waits_for_it(yard: Yard) -> None:
    name = begun(yard, 3)
    yard.ask(Cancel(name))
    pass_time(yard, 15.0)
    yard.hands.told.append(Noted(name, "", "making the mesh", 1, "meshing"))
    pass_time(yard, MESH_TO_STOP * 20.0 - 1.0)
    assert not yard.hands.killed
    pass_time(yard, 3.0)
    assert name in yard.hands.killed


def test_a_hang_before_the_cancel_was_heard_ends_as_cancelled(yard: Yard) -> None:
    name = begun(yard, 3)
    yard.ask(Cancel(name))
    die(yard, name)
    assert (
        yard.job(name).state == "cancelled"
        and "killed (SIGKILL)" in yard.job(name).message
        and yard.job(name).cause == "killed"
    )


def test_a_full_disk_that_keeps_an_end_from_being_written_makes_no_hang_of_it(yard: Yard) -> None:
    name = begun(yard, 3)
    yard.disk.full = True
    yard.hands.told.append(Ended(name, "failed", "no luck", False, 1, "run-failed"))
    pass_time(yard, 1000.0)
    assert not yard.hands.killed
    yard.disk.full = False
    pass_time(yard, 3.0)
    assert (yard.job(name).state, yard.job(name).cause, yard.job(name).message) == ("failed", "run-failed", "no luck")


@pytest.mark.parametrize("counts", [(3, 3), (None, 4), (3, None)])
def test_a_kill_is_laid_to_the_kernel_only_where_its_count_has_grown(
    counts: tuple[int | None, int | None], yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter(counts)
    monkeypatch.setattr(dispatcher, "oom_kills", lambda: next(told, None))
    name = begun(yard)
    die(yard, name)
    assert yard.job(name).cause == "killed"


def test_a_worker_that_the_kernel_ended_goes_on_with_less_memory(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    kills = [3]
    monkeypatch.setattr(dispatcher, "oom_kills", lambda: kills[0])
    name = yard.submit(settings={"run.views_per_step": "4"})
    yard.work()
    kills[0] = 4
    die(yard, name)
    job = yard.job(name)
    assert (job.cause, job.settings["run.views_at_once"], job.attempt) == ("machine-memory", "1", 2)
    kills[0] = 5
    die(yard, name)
    assert yard.job(name).attempt == 3 and yard.job(name).settings == job.settings, (
        "nothing smaller is left, but it may have been another program"
    )


@given(st.floats(0.01, 1000), st.floats(0.1, 1000), st.lists(st.floats(0, 500), min_size=1, max_size=20))
def test_no_worker_that_keeps_its_pace_is_ever_ended(
    hang_minutes: float, cancel_seconds: float, steps: list[float]
) -> None:
    """Whatever the steps take: as long as none is ten times slower than the slowest before it, or the stated time."""
    policy, vigil, now = Policy(hang_minutes=hang_minutes, cancel_seconds=cancel_seconds), Vigil(0.0), 0.0
    vigil.stepped_to(now, 0, 100, 0.0)
    for number, took in enumerate(steps, start=1):
        took = min(took, patience_s("stepping", vigil.slowest_s, policy))
        now += took
        assert not vigil.hung(now - 1e-6, policy)
        vigil.stepped_to(now, number, 100, now)
    assert vigil.slowest_s == pytest.approx(
        max(0.0, *(b - a for a, b in zip([0.0, *_sums(steps, policy)], _sums(steps, policy)))), abs=1e-6
    )
    assert grace_s("meshing", vigil.slowest_s, policy) == MESH_TO_STOP * cancel_seconds and STALL_S > 1.0


def _sums(steps: list[float], policy: Policy) -> list[float]:
    """When each step was told of, as above, by hand."""
    slowest, now, told = 0.0, 0.0, []
    for took in steps:
        took = min(took, max(60 * policy.hang_minutes, 10 * slowest))
        now, slowest = now + took, max(slowest, took)
        told.append(now)
    return told
