# SPDX-License-Identifier: GPL-3.0-or-later
"""Worker processes of the local runner: restarts with backoff, and runners whose workers outlive the server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.workers.local_runner import LONGEST_BACKOFF_S, LocalRunner, WorkerExited
from dreamwright.backend.server.workers.worker_protocol import ProgressReport
from tests.testing.in_memory_server import InMemoryServer


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def runner(tmp_path: Path, clock: Clock) -> Iterator[LocalRunner]:
    context = zmq.Context()
    runner = LocalRunner(context, ("cpu",), tmp_path / "logs", clock)
    yield runner
    runner.close(0.0)
    context.destroy(0)


def starts(runner: LocalRunner, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    started: list[str] = []
    start = runner._start
    monkeypatch.setattr(runner, "_start", lambda worker: (started.append(worker.device), start(worker)))
    return started


def test_workers_that_die_at_once_are_restarted_with_backoff(
    runner: LocalRunner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    started = starts(runner, monkeypatch)
    delays = []
    for _ in range(8):
        count, before = len(started), clock.now
        runner.idle_devices()
        while len(started) == count:
            clock.now += 0.5
            runner.idle_devices()
        delays.append(clock.now - before)
        end = time.monotonic() + 60  # reached only on failure
        while not any(isinstance(report, WorkerExited) for report in runner.reports()):
            assert time.monotonic() < end
            time.sleep(0.002)
    assert delays == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, LONGEST_BACKOFF_S]


def test_worker_that_cannot_start_leaves_the_server_running(
    runner: LocalRunner, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log cannot be opened, as on a full disk; a file in the way of the folder stands for it."""
    (tmp_path / "logs").write_text("in the way")
    started = starts(runner, monkeypatch)
    for _ in range(5):
        assert runner.idle_devices() == [] and list(runner.reports()) == []
    assert started == ["cpu"]
    clock.now += 1.0
    runner.idle_devices()
    assert started == ["cpu", "cpu"]


POLICY = Policy(hang_minutes=1.0)


@pytest.fixture
def surviving_server(tmp_path: Path) -> Iterator[InMemoryServer]:
    surviving_server = InMemoryServer(tmp_path, policy=POLICY)
    surviving_server.runner.survives_server = True
    yield surviving_server
    surviving_server.kill()


def test_shutdown_leaves_surviving_workers_running(
    surviving_server: InMemoryServer,
) -> None:
    running, waiting = surviving_server.submit(), surviving_server.submit()
    surviving_server.step()
    surviving_server.service.begin_shutdown()
    assert surviving_server.runner.stopped == [] and surviving_server.service.running_jobs() == []
    surviving_server.step(1.0)
    assert (surviving_server.job(running).state, surviving_server.job(waiting).state) == ("running", "queued")
    assert surviving_server.runner.given == [running]


def test_lost_device_connection_is_no_hang(surviving_server: InMemoryServer) -> None:
    """An hour without the cluster; then as long as any other before it is taken for hanging."""
    job = surviving_server.submit()
    surviving_server.step()
    surviving_server.report(ProgressReport, job, 5, 100, 5.0, 95.0)
    devices, surviving_server.runner.devices = surviving_server.runner.devices, ()
    for _ in range(3600):
        surviving_server.step(1.0)
    assert surviving_server.runner.killed == []
    surviving_server.runner.devices = devices
    for _ in range(58):
        surviving_server.step(1.0)
    assert surviving_server.runner.killed == []
    for _ in range(4):
        surviving_server.step(1.0)
    assert set(surviving_server.runner.killed) == {job}


def test_reattached_silent_job_is_ended(surviving_server: InMemoryServer) -> None:
    """It counts as loading until its first report."""
    job = surviving_server.submit()
    surviving_server.step()
    surviving_server.living[job] = surviving_server.job(job).attempt
    surviving_server.kill()
    surviving_server.open()
    assert surviving_server.job(job).state == "running" and surviving_server.runner.given == []
    for _ in range(358):
        surviving_server.step(1.0)
    assert surviving_server.runner.killed == []
    for _ in range(4):
        surviving_server.step(1.0)
    assert set(surviving_server.runner.killed) == {job}
