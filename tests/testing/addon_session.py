# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's session beside a fake server, in one thread and without Blender's data."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.testing.fake_server import FakeServer
from tests.testing.installed_addon import PACKAGE


def addon_module(name: str) -> Any:
    """A module of the installed add-on."""
    return importlib.import_module(f"{PACKAGE}.{name}")


class SessionBench:
    """A session of the add-on and a fake server, stepped together, with a clock that a test moves by `ahead`
    seconds.
    """

    def __init__(self, folder: Path) -> None:
        self.ahead = 0.0
        self.server = FakeServer(pace=0)
        self.session = addon_module("session").Session(folder, lambda: time.monotonic() + self.ahead)
        self.events: list[Any] = []

    def settle(self, until: Callable[[], bool], seconds: float = 8.0) -> None:
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, (self.session.connection_state, self.session.notices)
            self.server.step(0.002)
            self.events += self.session.tick()

    def connect(self) -> None:
        self.session.connect(self.server.address)
        self.settle(lambda: self.session.is_online and self.session.capabilities is not None)

    def submit(self, prompt: str = "a red chair") -> str:
        ticket = self.session.submit(prompt, "", "starter", "quick", 1, {})
        self.settle(lambda: ticket in self.session.submitted_jobs)
        return self.session.submitted_jobs[ticket]


@pytest.fixture
def bench(installed: Path, tmp_path: Path) -> Iterator[SessionBench]:
    made = SessionBench(tmp_path)
    yield made
    made.session.disconnect()
    made.server.close()
