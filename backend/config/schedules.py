# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules as pure functions of progress, the share of the run's steps that are done, in [0, 1]."""

from __future__ import annotations

import math


def linear(start: float, end: float, share: float, progress: float) -> float:
    """From `start` at 0 to `end` at `share`, constant afterwards; a share of 0 is `end` throughout."""
    if share <= 0:
        return end
    return start + (end - start) * min(1.0, max(0.0, progress / share))


def exponential(start: float, end: float, share: float, progress: float) -> float:
    """From `start` > 0 at 0 to `end` > 0 at `share`, linear in the logarithm, constant afterwards.

    A share of 0 is `end` throughout.
    """
    return math.exp(linear(math.log(start), math.log(end), share, progress))


def warmup_cosine(start: float, peak: float, final: float, warmup_share: float, progress: float) -> float:
    """Linear warm-up from `start` to `peak` over `warmup_share`, then half a cosine down to `final` at 1."""
    if progress < warmup_share:
        return linear(start, peak, warmup_share, progress)
    rest = (progress - warmup_share) / max(1e-12, 1 - warmup_share)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))
