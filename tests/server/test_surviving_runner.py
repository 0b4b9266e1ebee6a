# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server does differently for a runner whose jobs outlive it, as those of a cluster do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.workers.worker_protocol import Stepped
from tests.testing.in_memory_server import Yard

POLICY = Policy(hang_minutes=1.0)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    yard = Yard(tmp_path, policy=POLICY)
    yard.hands.survives = True
    yield yard
    yard.kill()


def test_a_server_that_ends_leaves_their_jobs_alone_and_does_not_wait_for_them(yard: Yard) -> None:
    running, waiting = yard.submit(), yard.submit()
    yard.work()
    yard.service.begin_closing()
    assert yard.hands.stopped == [] and yard.service.at_work() == []
    yard.work(1.0)
    assert (yard.job(running).state, yard.job(waiting).state) == ("running", "queued")
    assert yard.hands.given == [running]


def test_silence_while_there_is_no_connection_to_the_device_is_no_hang(yard: Yard) -> None:
    """An hour without the cluster; then as long as any other before it is taken for hanging."""
    job = yard.submit()
    yard.work()
    yard.report(Stepped, job, 5, 100, 5.0, 95.0)
    devices, yard.hands.devices = yard.hands.devices, ()
    for _ in range(3600):
        yard.work(1.0)
    assert yard.hands.killed == []
    yard.hands.devices = devices
    for _ in range(58):
        yard.work(1.0)
    assert yard.hands.killed == []
    for _ in range(4):
        yard.work(1.0)
    assert set(yard.hands.killed) == {job}


def test_an_adopted_job_that_says_nothing_is_ended_in_time_too(yard: Yard) -> None:
    """It counts as loading, whatever it does, until it speaks."""
    job = yard.submit()
    yard.work()
    yard.living[job] = yard.job(job).attempt
    yard.kill()
    yard.open()
    assert yard.job(job).state == "running" and yard.hands.given == []
    for _ in range(358):
        yard.work(1.0)
    assert yard.hands.killed == []
    for _ in range(4):
        yard.work(1.0)
    assert set(yard.hands.killed) == {job}
