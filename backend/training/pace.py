# SPDX-License-Identifier: GPL-3.0-or-later
"""The time that a run still takes, when its stages have steps of different lengths."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


class Pace:
    """Seconds a step of each stage, measured from `now` at `step` on.

    stage_ends: steps after which each stage ends, rising; the last is the number of all steps.
    """

    def __init__(self, stage_ends: Sequence[int], step: int, now: float) -> None:
        self._ends = tuple(stage_ends)
        self._mark, self._stage = now, self._stage_after(step)
        self._steps, self._seconds = [0] * len(self._ends), [0.0] * len(self._ends)

    def record(self, step: int, now: float) -> None:
        """Step number `step`, counted from 1, ended at `now`.

        The first step of a stage that follows another is left out, as it prepares the stage too.
        """
        stage = self._stage_after(step - 1)
        if stage == self._stage:
            self._steps[stage] += 1
            self._seconds[stage] += now - self._mark
        self._mark, self._stage = now, stage

    def remaining_s(self, step: int) -> float:
        """Seconds from `step` to the end; a stage without a measured step counts as long a step as the newest one."""
        rates = [seconds / steps if steps else None for steps, seconds in zip(self._steps, self._seconds, strict=True)]
        known = next((rates[stage] for stage in range(self._stage, -1, -1) if rates[stage] is not None), None) or 0.0
        total, begin = 0.0, 0
        for end, rate in zip(self._ends, rates, strict=True):
            total += (known if rate is None else rate) * max(0, end - max(begin, step))
            begin = end
        return total

    def _stage_after(self, step: int) -> int:
        """The stage of the step that follows `step` steps."""
        return min(bisect_right(self._ends, step), len(self._ends) - 1)
