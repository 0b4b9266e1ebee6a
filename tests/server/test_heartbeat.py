# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker that sends no report for too long, or does not stop, is killed; one that is only slow is not."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.workers import attempt_tracker
from dreamwright.backend.server.workers.heartbeat import (
    HANG_STEPS,
    LONG_STAGE_FACTOR,
    MESH_CANCEL_FACTOR,
    STALL_S,
    Heartbeat,
    cancel_timeout_s,
    hang_timeout_s,
)
from dreamwright.backend.server.workers.local_runner import WorkerExited
from dreamwright.backend.server.workers.worker_protocol import JobFinished, ProgressReport, StatusReport
from dreamwright.shared.messages import CancelJob
from tests.testing.in_memory_server import InMemoryServer

POLICY = Policy(hang_minutes=1.0, cancel_seconds=20.0)


@pytest.fixture
def in_memory_server(tmp_path: Path) -> InMemoryServer:
    return InMemoryServer(tmp_path / "state", policy=POLICY)


def started(in_memory_server: InMemoryServer, step: int = 0) -> str:
    name = in_memory_server.submit()
    in_memory_server.step()
    for done in range(1, step + 1):
        in_memory_server.step(1.0)
        in_memory_server.report(ProgressReport, name, done, 100, float(done), 1.0)
    return name


def pass_time(in_memory_server: InMemoryServer, seconds: float) -> None:
    """As a server does that looks every second."""
    while seconds > 0:
        in_memory_server.step(min(1.0, seconds))
        seconds -= 1.0


def die(in_memory_server: InMemoryServer, name: str) -> None:
    in_memory_server.runner.queued.append(WorkerExited(name, -signal.SIGKILL))
    in_memory_server.step()


def test_silence_beyond_the_hang_timeout_ends_the_worker(
    in_memory_server: InMemoryServer,
) -> None:
    name = started(in_memory_server, 3)
    pass_time(in_memory_server, 60.0)
    assert not in_memory_server.runner.killed
    pass_time(in_memory_server, 1.5)
    assert set(in_memory_server.runner.killed) == {name}
    die(in_memory_server, name)
    job = in_memory_server.job(name)
    assert (job.state, job.attempt, job.cause) == ("running", 2, "hang"), "it is given out again at once"
    assert in_memory_server.store.records[name].attempts == 1


def test_third_hang_fails_the_job(in_memory_server: InMemoryServer) -> None:
    name = started(in_memory_server)
    for _ in range(3):
        pass_time(in_memory_server, 60.0 * LONG_STAGE_FACTOR + 2.0)
        die(in_memory_server, name)
    job = in_memory_server.job(name)
    assert (job.state, job.cause) == ("failed", "hang")
    assert (
        "sent no heartbeat for 360 s while loading" in job.message
        and "3 times" in job.message
        and "--hang-minutes" in job.message
    )


def test_loading_and_meshing_have_longer_timeouts(in_memory_server: InMemoryServer) -> None:
    name = started(in_memory_server)
    pass_time(in_memory_server, 60.0 * LONG_STAGE_FACTOR - 1.0)
    in_memory_server.report(StatusReport, name, "", "loading the model")
    pass_time(in_memory_server, 60.0 * LONG_STAGE_FACTOR - 1.0)
    assert not in_memory_server.runner.killed, "each word counts"
    in_memory_server.report(ProgressReport, name, 100, 100, 5.0, 0.0)
    pass_time(in_memory_server, 60.0 * LONG_STAGE_FACTOR - 1.0)
    assert not in_memory_server.runner.killed, "after its last step it makes the mesh"
    pass_time(in_memory_server, 2.5)
    assert name in in_memory_server.runner.killed


def test_slow_steps_extend_the_hang_timeout(in_memory_server: InMemoryServer) -> None:
    name = started(in_memory_server, 1)
    for step in (2, 3):
        pass_time(in_memory_server, 40.0)
        in_memory_server.report(ProgressReport, name, step, 100, 40.0 * step, 1.0)
    pass_time(in_memory_server, HANG_STEPS * 40.0 - 2.0)
    assert not in_memory_server.runner.killed
    pass_time(in_memory_server, 4.0)
    assert name in in_memory_server.runner.killed


def test_server_stalls_do_not_count_as_silence(in_memory_server: InMemoryServer) -> None:
    name = started(in_memory_server, 3)
    in_memory_server.step(10_000.0)  # stopped by SIGSTOP, say; whatever the worker said meanwhile has not been read yet
    in_memory_server.step(1.0)
    assert not in_memory_server.runner.killed
    pass_time(in_memory_server, 61.0)
    assert name in in_memory_server.runner.killed


def test_pending_reports_are_read_before_a_kill(in_memory_server: InMemoryServer) -> None:
    name = started(in_memory_server, 3)
    pass_time(in_memory_server, 59.5)
    in_memory_server.now += 1.5
    in_memory_server.report(ProgressReport, name, 4, 100, 4.0, 1.0)
    assert not in_memory_server.runner.killed


def test_result_reported_during_a_kill_is_kept(in_memory_server: InMemoryServer) -> None:
    name = started(in_memory_server, 3)
    pass_time(in_memory_server, 62.0)
    assert name in in_memory_server.runner.killed
    in_memory_server.finish(name)
    die(in_memory_server, "")
    assert in_memory_server.job(name).state == "succeeded" and in_memory_server.job(name).cause == ""


@pytest.mark.parametrize(("step", "stage", "grace"), [(0, "loading", 20.0), (3, "stepping", 20.0)])
def test_cancelled_job_is_killed_after_its_grace_period(
    step: int, stage: str, grace: float, in_memory_server: InMemoryServer
) -> None:
    name = started(in_memory_server, step)
    assert in_memory_server.request(CancelJob(name)).job.state == "cancelling"
    in_memory_server.step()
    for _ in range(int(grace)):
        in_memory_server.step(1.0)
        in_memory_server.report(StatusReport, name, "", "still here")
    assert not in_memory_server.runner.killed
    assert in_memory_server.request(CancelJob(name)).job.state == "cancelling", "twice is once: it gains no time"
    pass_time(in_memory_server, 1.5)
    assert name in in_memory_server.runner.killed
    die(in_memory_server, name)
    job = in_memory_server.job(name)
    assert (
        job.state == "cancelled"
        and f"did not stop within 20 s while {stage}" in job.message
        and "no mesh" in job.message
    )
    other = in_memory_server.submit()
    in_memory_server.step()
    assert in_memory_server.job(other).state == "running", "its device is free"


def test_meshing_of_a_cancelled_job_has_more_time(
    in_memory_server: InMemoryServer,
) -> None:
    name = started(in_memory_server, 3)
    in_memory_server.request(CancelJob(name))
    pass_time(in_memory_server, 15.0)
    in_memory_server.runner.queued.append(StatusReport(name, "", "making the mesh", 1, "meshing"))
    pass_time(in_memory_server, MESH_CANCEL_FACTOR * 20.0 - 1.0)
    assert not in_memory_server.runner.killed
    pass_time(in_memory_server, 3.0)
    assert name in in_memory_server.runner.killed


def test_hang_during_a_cancel_ends_as_cancelled(in_memory_server: InMemoryServer) -> None:
    name = started(in_memory_server, 3)
    in_memory_server.request(CancelJob(name))
    die(in_memory_server, name)
    assert (
        in_memory_server.job(name).state == "cancelled"
        and "killed (SIGKILL)" in in_memory_server.job(name).message
        and in_memory_server.job(name).cause == "killed"
    )


def test_full_disk_at_the_end_is_no_hang(in_memory_server: InMemoryServer) -> None:
    name = started(in_memory_server, 3)
    in_memory_server.disk.full = True
    in_memory_server.runner.queued.append(JobFinished(name, "failed", "no luck", False, 1, "run-failed"))
    pass_time(in_memory_server, 1000.0)
    assert not in_memory_server.runner.killed
    in_memory_server.disk.full = False
    pass_time(in_memory_server, 3.0)
    assert (in_memory_server.job(name).state, in_memory_server.job(name).cause, in_memory_server.job(name).message) == (
        "failed",
        "run-failed",
        "no luck",
    )


@pytest.mark.parametrize("counts", [(3, 3), (None, 4), (3, None)])
def test_sigkill_is_oom_only_when_the_kernel_count_grew(
    counts: tuple[int | None, int | None], in_memory_server: InMemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = iter(counts)
    monkeypatch.setattr(attempt_tracker, "oom_kills", lambda: next(counted, None))
    name = started(in_memory_server)
    die(in_memory_server, name)
    assert in_memory_server.job(name).cause == "killed"


def test_oom_killed_worker_resumes_with_less_memory(
    in_memory_server: InMemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = [3]
    monkeypatch.setattr(attempt_tracker, "oom_kills", lambda: kills[0])
    name = in_memory_server.submit(settings={"run.views_per_step": "8"})  # two sets
    in_memory_server.step()
    kills[0] = 4
    die(in_memory_server, name)
    job = in_memory_server.job(name)
    assert (job.cause, job.settings["run.views_at_once"], job.attempt) == ("machine-memory", "1", 2)
    kills[0] = 5
    die(in_memory_server, name)
    assert in_memory_server.job(name).attempt == 3 and in_memory_server.job(name).settings == job.settings, (
        "nothing smaller is left, but it may have been another program"
    )


@given(st.floats(0.01, 1000), st.floats(0.1, 1000), st.lists(st.floats(0, 500), min_size=1, max_size=20))
def test_steady_workers_are_never_killed(hang_minutes: float, cancel_seconds: float, steps: list[float]) -> None:
    """Whatever the steps take: as long as none is ten times slower than the slowest before it, or the stated time."""
    policy, heartbeat, now = Policy(hang_minutes=hang_minutes, cancel_seconds=cancel_seconds), Heartbeat(0.0), 0.0
    heartbeat.record_step(now, 0, 100, 0.0)
    for number, duration in enumerate(steps, start=1):
        elapsed = min(duration, hang_timeout_s("stepping", heartbeat.slowest_s, policy))
        now += elapsed
        assert not heartbeat.is_hung(now - 1e-6, policy)
        heartbeat.record_step(now, number, 100, now)
    # Times of up to 20 x 10,000 s are float64: 2e5 x 1.1e-16 = 2e-11 for each of 20 sums.
    assert heartbeat.slowest_s == pytest.approx(
        max(0.0, *(b - a for a, b in zip([0.0, *_sums(steps, policy)], _sums(steps, policy), strict=False))), abs=1e-6
    )
    assert cancel_timeout_s("meshing", heartbeat.slowest_s, policy) == MESH_CANCEL_FACTOR * cancel_seconds
    assert STALL_S > 1.0


def _sums(steps: list[float], policy: Policy) -> list[float]:
    """When each step was reported, as above, computed independently."""
    slowest, now, reports = 0.0, 0.0, []
    for duration in steps:
        elapsed = min(duration, max(60 * policy.hang_minutes, 10 * slowest))
        now, slowest = now + elapsed, max(slowest, elapsed)
        reports.append(now)
    return reports
