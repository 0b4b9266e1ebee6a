# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server does differently for a runner whose jobs outlive it, as those of a cluster do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.workers.worker_protocol import ProgressReport
from tests.testing.in_memory_server import InMemoryServer

POLICY = Policy(hang_minutes=1.0)


@pytest.fixture
def in_memory_server(tmp_path: Path) -> Iterator[InMemoryServer]:
    in_memory_server = InMemoryServer(tmp_path, policy=POLICY)
    in_memory_server.runner.survives_server = True
    yield in_memory_server
    in_memory_server.kill()


def test_a_server_that_ends_leaves_their_jobs_alone_and_does_not_wait_for_them(
    in_memory_server: InMemoryServer,
) -> None:
    running, waiting = in_memory_server.submit(), in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.service.begin_closing()
    assert in_memory_server.runner.stopped == [] and in_memory_server.service.at_work() == []
    in_memory_server.step(1.0)
    assert (in_memory_server.job(running).state, in_memory_server.job(waiting).state) == ("running", "queued")
    assert in_memory_server.runner.given == [running]


def test_silence_while_there_is_no_connection_to_the_device_is_no_hang(in_memory_server: InMemoryServer) -> None:
    """An hour without the cluster; then as long as any other before it is taken for hanging."""
    job = in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.report(ProgressReport, job, 5, 100, 5.0, 95.0)
    devices, in_memory_server.runner.devices = in_memory_server.runner.devices, ()
    for _ in range(3600):
        in_memory_server.step(1.0)
    assert in_memory_server.runner.killed == []
    in_memory_server.runner.devices = devices
    for _ in range(58):
        in_memory_server.step(1.0)
    assert in_memory_server.runner.killed == []
    for _ in range(4):
        in_memory_server.step(1.0)
    assert set(in_memory_server.runner.killed) == {job}


def test_an_adopted_job_that_says_nothing_is_ended_in_time_too(in_memory_server: InMemoryServer) -> None:
    """It counts as loading, whatever it does, until it speaks."""
    job = in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.living[job] = in_memory_server.job(job).attempt
    in_memory_server.kill()
    in_memory_server.open()
    assert in_memory_server.job(job).state == "running" and in_memory_server.runner.given == []
    for _ in range(358):
        in_memory_server.step(1.0)
    assert in_memory_server.runner.killed == []
    for _ in range(4):
        in_memory_server.step(1.0)
    assert set(in_memory_server.runner.killed) == {job}
