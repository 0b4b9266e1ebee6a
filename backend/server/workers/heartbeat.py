# SPDX-License-Identifier: GPL-3.0-or-later
"""Signs of life of one attempt, and when their lack means that its worker is to be ended.

The worker speaks from its own loop and from no thread beside it, so a worker that stands in a kernel says nothing. How
long it may say nothing grows with its slowest step; loading a model and making a mesh are one long step each.
"""

from __future__ import annotations

from dataclasses import dataclass

from dreamwright.shared.failure_causes import FailureCause

from ..policy import Policy

SLOWEST_STEPS = 10.0  # a worker may say nothing for so many times its slowest step
LONG_STAGES = 6.0  # so many times as long as between two steps, while loading or making the mesh
SLOW_STEPS_TO_STOP = 3.0  # a cancelled job may take so many of its slowest steps to stop
MESH_TO_STOP = 5.0  # so many times as long as to stop, for the mesh of a cancelled job: its artist waits for it
FRESH_SHARE = 0.3  # of the newest report in the pace that is shown
STALL_S = 2.0  # a server that did not look for longer was held up itself; that time counts for nobody


@dataclass
class Heartbeat:
    """What is known of one attempt, by the monotonic clock, seconds."""

    begun: float
    oom_kills: int | None = None  # processes that the kernel had ended for want of memory when it began; None: unknown
    stage: str = "loading"
    heard: float = 0.0
    stage_since: float = 0.0
    stepped: float = 0.0  # when it last told of a step
    slowest_s: float = 0.0  # longest time from one told step to the next
    cancelled: float | None = None
    verdict: FailureCause = FailureCause.NONE  # why the server ended its worker
    first: tuple[int, float] | None = None  # (step, seconds) of the first step that it told of
    last: tuple[int, float] = (0, 0.0)
    rate: float = 0.0  # steps a second of late; 0: not known yet

    def __post_init__(self) -> None:
        self.heard = self.stage_since = self.begun

    def beat(self, now: float, stage: str = "") -> None:
        """It said something; `stage` is what it does from now on."""
        self.heard = now
        if stage and stage != self.stage:
            self.stage, self.stage_since = stage, now

    def stepped_to(self, now: float, step: int, steps: int, elapsed_s: float) -> tuple[int, float]:
        """It told of a step. Answers the steps since the last one that it told of and what they took; (0, 0) where that is not known."""
        if self.stage == "stepping":
            self.slowest_s = max(self.slowest_s, now - self.stepped)
        self.stepped = now
        self.beat(now, "meshing" if step >= steps else "stepping")
        seen = (step, elapsed_s)
        gained = (0, 0.0)
        if self.first is None or seen < self.last:  # it began anew from another seed
            self.first = seen
        elif seen[0] > self.last[0] and seen[1] > self.last[1]:
            gained = seen[0] - self.last[0], seen[1] - self.last[1]
            self.rate += (FRESH_SHARE if self.rate else 1.0) * (gained[0] / gained[1] - self.rate)
        self.last = seen
        return gained

    def cancel(self, now: float) -> None:
        """It was told to stop for good; once is enough."""
        self.cancelled = now if self.cancelled is None else self.cancelled

    def shift(self, gap_s: float, now: float) -> None:
        """Time in which nobody listened does not count; what was heard since is of now."""
        self.heard = min(self.heard + gap_s, now)
        self.stage_since = min(self.stage_since + gap_s, now)
        self.stepped = min(self.stepped + gap_s, now)
        if self.cancelled is not None:
            self.cancelled = min(self.cancelled + gap_s, now)

    def hung(self, now: float, policy: Policy) -> bool:
        """Whether it has said nothing for too long."""
        return now - self.heard > patience_s(self.stage, self.slowest_s, policy)

    def past_grace(self, now: float, policy: Policy) -> bool:
        """Whether it was cancelled and does not come to an end, whatever it says."""
        if self.cancelled is None:
            return False
        return now - max(self.cancelled, self.stage_since) > grace_s(self.stage, self.slowest_s, policy)


def patience_s(stage: str, slowest_s: float, policy: Policy) -> float:
    """How long a worker may say nothing, seconds."""
    hang_s = 60.0 * policy.hang_minutes
    return max(hang_s, SLOWEST_STEPS * slowest_s) if stage == "stepping" else LONG_STAGES * hang_s


def grace_s(stage: str, slowest_s: float, policy: Policy) -> float:
    """How long a cancelled job may stay in a stage, seconds."""
    if stage == "meshing":
        return MESH_TO_STOP * policy.cancel_seconds
    return max(policy.cancel_seconds, SLOW_STEPS_TO_STOP * slowest_s)
