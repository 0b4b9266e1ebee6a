# SPDX-License-Identifier: GPL-3.0-or-later
"""A client and a fake server in one process, with a clock that a test sets forward."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dreamwright.shared.client import Client
from dreamwright.shared.messages import (
    JobList,
    JobSummary,
    SubmitJob,
)
from tests.testing.fake_server import FakeServer


class Clock:
    """A clock that a test sets forward, so that nothing waits for seconds to pass."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Pair:
    """A server and a client, stepped together."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.server = FakeServer(pace=0)
        self.client = Client(self.server.address, "0" * 32, clock=self.clock)
        self.events: list[Any] = []
        self.server_runs = True

    def settle(self, until: Callable[[], bool], seconds: float = 60.0) -> None:
        """Step both until a condition holds; the limit is reached only on failure."""
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, (
                f"never came about; {self.client.state} {self.client.reason}, {self.events[-3:]}"
            )
            if self.server_runs:
                self.server.step(0.002)
            self.events += self.client.tick()

    def connect(self) -> None:
        self.client.connect()
        self.client.subscribe()
        self.settle(lambda: any(isinstance(event, JobList) for event in self.events))

    def ask(self, message: Any) -> Any:
        replies: list[Any] = []
        self.client.request(message, replies.append)
        self.settle(lambda: bool(replies))
        return replies[0]

    def submit(self, ticket: str = "t1") -> JobSummary:
        return self.ask(submission(ticket)).job

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def submission(ticket: str) -> SubmitJob:
    return SubmitJob(ticket, "a red mushroom", "", "starter", "quick", 3, {"mesh.height_m": 0.5})


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.client.close()
    if made.server_runs:
        made.server.close()
