# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker that cannot even start is tried again, ever more seldom, and costs the server nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from dreamwright.backend.server.workers.local_runner import LONGEST_BACKOFF_S, LocalRunner, WorkerExited


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def foreman(tmp_path: Path, clock: Clock) -> Iterator[LocalRunner]:
    context = zmq.Context()
    foreman = LocalRunner(context, ("cpu",), tmp_path / "logs", clock)
    yield foreman
    foreman.close(0.0)
    context.destroy(0)


def starts(foreman: LocalRunner, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    begun: list[str] = []
    start = foreman._start
    monkeypatch.setattr(foreman, "_start", lambda hand: (begun.append(hand.device), start(hand)))
    return begun


def test_a_worker_that_dies_at_once_is_started_after_1_2_4_seconds_and_at_last_each_minute(
    foreman: LocalRunner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    begun = starts(foreman, monkeypatch)
    rests = []
    for _ in range(8):
        count, before = len(begun), clock.now
        foreman.idle_devices()
        while len(begun) == count:
            clock.now += 0.5
            foreman.idle_devices()
        rests.append(clock.now - before)
        end = time.monotonic() + 10
        while not any(isinstance(report, WorkerExited) for report in foreman.reports()):
            assert time.monotonic() < end
            time.sleep(0.002)
    assert rests == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, LONGEST_BACKOFF_S]


def test_a_worker_that_cannot_be_started_at_all_leaves_the_server_alive(
    foreman: LocalRunner, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log cannot be opened, as on a full disk; a file in the way of the folder stands for it."""
    (tmp_path / "logs").write_text("in the way")
    begun = starts(foreman, monkeypatch)
    for _ in range(5):
        assert foreman.idle_devices() == [] and list(foreman.reports()) == []
    assert begun == ["cpu"]
    clock.now += 1.0
    foreman.idle_devices()
    assert begun == ["cpu", "cpu"]
