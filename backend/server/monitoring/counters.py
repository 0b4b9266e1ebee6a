# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server's loop has counted since its start. Filled and read in that one thread; knows nothing of who is told."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

ANSWER_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
STEP_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass
class Histogram:
    """How often a value fell between two bounds, upper bounds included; the last count is of what is above them all."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0  # of all values

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def copy(self) -> Histogram:
        """The same counts, which change no more."""
        return Histogram(self.bounds, list(self.counts), self.total)


@dataclass
class Counters:
    """Counts and spreads. Names of messages, codes, states and devices are few; those of users and jobs never enter."""

    requests: Counter[str] = field(default_factory=Counter)  # by type
    refusals: Counter[str] = field(default_factory=Counter)  # by code
    ended: Counter[str] = field(default_factory=Counter)  # jobs, by the state they ended in
    worker_deaths: int = 0
    preview_bytes: int = 0  # sent
    lost_events: int = 0  # that slow clients did not get
    answers: Histogram = field(
        default_factory=lambda: Histogram(ANSWER_BOUNDS_S)
    )  # seconds from a request's arrival in the loop to its reply
    steps: dict[str, Histogram] = field(default_factory=dict)  # seconds a step, by device

    def stepped(self, device: str, steps: int, seconds: float) -> None:
        """A worker took so many steps in so many seconds."""
        self.steps.setdefault(device, Histogram(STEP_BOUNDS_S)).add(seconds / steps, steps)
