# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server has counted since its start; written and read in the server's one thread."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

REQUEST_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
STEP_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass
class Histogram:
    """Counts of values by bucket, upper bounds included; the last bucket has no upper bound."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0  # sum of all values

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float, times: int = 1) -> None:
        """Count a value `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def copy(self) -> Histogram:
        """An independent copy."""
        return Histogram(self.bounds, list(self.counts), self.total)


@dataclass
class Counters:
    """Counts and histograms. Labels are names of messages, codes, states and devices; never of users or jobs."""

    requests: Counter[str] = field(default_factory=Counter)  # by type
    refusals: Counter[str] = field(default_factory=Counter)  # by code
    ended: Counter[str] = field(default_factory=Counter)  # jobs, by final state
    worker_deaths: int = 0
    preview_bytes: int = 0  # sent
    lost_events: int = 0  # that slow clients did not receive
    answers: Histogram = field(default_factory=lambda: Histogram(REQUEST_BOUNDS_S))  # seconds from request to reply
    steps: dict[str, Histogram] = field(default_factory=dict)  # seconds per step, by device

    def record_steps(self, device: str, steps: int, seconds: float) -> None:
        """A worker took `steps` steps in `seconds`."""
        self.steps.setdefault(device, Histogram(STEP_BOUNDS_S)).add(seconds / steps, steps)
