# SPDX-License-Identifier: GPL-3.0-or-later
"""Heartbeats of one attempt, and the timeouts after which its worker is killed.

A worker reports from its training loop and not from a thread beside it, so a worker blocked in a CUDA kernel sends no
heartbeat. The timeout grows with the worker's slowest step; loading a model and making a mesh each count as one long
step.
"""

from __future__ import annotations

from dataclasses import dataclass

from dreamwright.shared.failure_causes import FailureCause

from ..policy import Policy

HANG_STEPS = 10.0  # the hang timeout is at least this many times the slowest step
LONG_STAGE_FACTOR = 6.0  # hang timeout while loading or meshing, relative to that between two steps
CANCEL_STEPS = 3.0  # the cancel timeout is at least this many times the slowest step
MESH_CANCEL_FACTOR = 5.0  # cancel timeout while meshing, relative to the usual one: the user waits for that mesh
RATE_SMOOTHING = 0.3  # weight of the newest report in the displayed rate
STALL_S = 2.0  # a server that did not check for longer was held up itself; that time does not count


@dataclass
class Heartbeat:
    """What is known of one attempt; times are seconds of the monotonic clock."""

    started: float
    oom_kills: int | None = None  # processes that the kernel had killed for lack of memory at the start; None: unknown
    stage: str = "loading"
    last_beat: float = 0.0
    stage_since: float = 0.0
    last_step_at: float = 0.0  # when it last reported a step
    slowest_s: float = 0.0  # longest time between two reported steps
    cancelled: float | None = None  # when it was told to cancel
    kill_cause: FailureCause = FailureCause.NONE  # why the server killed its worker
    first: tuple[int, float] | None = None  # (step, seconds) of the first reported step
    last: tuple[int, float] = (0, 0.0)
    rate: float = 0.0  # smoothed steps per second; 0: not known yet

    def __post_init__(self) -> None:
        self.last_beat = self.stage_since = self.started

    def beat(self, now: float, stage: str = "") -> None:
        """The worker reported something; `stage` is what it does from now on, "" if that is unchanged."""
        self.last_beat = now
        if stage and stage != self.stage:
            self.stage, self.stage_since = stage, now

    def record_step(self, now: float, step: int, steps: int, elapsed_s: float) -> tuple[int, float]:
        """The worker reported a step. Returns the steps since its last report and their seconds; (0, 0) if unknown."""
        if self.stage == "stepping":
            self.slowest_s = max(self.slowest_s, now - self.last_step_at)
        self.last_step_at = now
        self.beat(now, "meshing" if step >= steps else "stepping")
        report = (step, elapsed_s)
        gained = (0, 0.0)
        if self.first is None or report < self.last:  # the run restarted with another seed
            self.first = report
        elif report[0] > self.last[0] and report[1] > self.last[1]:
            gained = report[0] - self.last[0], report[1] - self.last[1]
            weight = RATE_SMOOTHING if self.rate else 1.0
            self.rate += weight * (gained[0] / gained[1] - self.rate)
        self.last = report
        return gained

    def cancel(self, now: float) -> None:
        """The worker was told to cancel its job; later calls change nothing."""
        self.cancelled = now if self.cancelled is None else self.cancelled

    def shift(self, gap_s: float, now: float) -> None:
        """Discount a time in which no report could arrive; nothing is moved beyond `now`."""
        self.last_beat = min(self.last_beat + gap_s, now)
        self.stage_since = min(self.stage_since + gap_s, now)
        self.last_step_at = min(self.last_step_at + gap_s, now)
        if self.cancelled is not None:
            self.cancelled = min(self.cancelled + gap_s, now)

    def is_hung(self, now: float, policy: Policy) -> bool:
        """Whether no heartbeat arrived within the hang timeout."""
        return now - self.last_beat > hang_timeout_s(self.stage, self.slowest_s, policy)

    def past_grace(self, now: float, policy: Policy) -> bool:
        """Whether a cancelled job did not end within the cancel timeout, with heartbeats or without."""
        if self.cancelled is None:
            return False
        return now - max(self.cancelled, self.stage_since) > cancel_timeout_s(self.stage, self.slowest_s, policy)


def hang_timeout_s(stage: str, slowest_s: float, policy: Policy) -> float:
    """Seconds without a heartbeat after which a worker counts as hung."""
    hang_s = 60.0 * policy.hang_minutes
    return max(hang_s, HANG_STEPS * slowest_s) if stage == "stepping" else LONG_STAGE_FACTOR * hang_s


def cancel_timeout_s(stage: str, slowest_s: float, policy: Policy) -> float:
    """Seconds that a cancelled job may spend in a stage."""
    if stage == "meshing":
        return MESH_CANCEL_FACTOR * policy.cancel_seconds
    return max(policy.cancel_seconds, CANCEL_STEPS * slowest_s)
