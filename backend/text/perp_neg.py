# SPDX-License-Identifier: GPL-3.0-or-later
"""Perp-Neg by azimuth (Armandpour et al. 2023): prompts between two view words, and the weights of their negatives.

Between front and side a prompt is the mean of both, weighted by the angle, and so it is between side and back. Its
negatives are the front and the side: the further a view is from one of them, the more it is led away from it. The
numbers are threestudio's (threestudio/models/prompt_processors/base.py at 28d9d80), which the paper leaves to tuning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# (a, b, c) of f(r) = a exp(-b r) + c: perp_neg_f_fs, perp_neg_f_sf, perp_neg_f_sb and perp_neg_f_fsb of threestudio.
# The first three are about 0 at r = 1, where the view is that of the negative's own words.
FRONT_BEFORE_SIDE = (4.0, 0.5, -2.426)
SIDE_BEFORE_SIDE = (4.0, 0.5, -2.426)
SIDE_BEHIND_SIDE = (1.0, 0.5, -0.606)
FRONT_BEHIND_SIDE = (1.0, 0.5, 0.967)


@dataclass(frozen=True)
class ViewBlend:
    """A view as `share` of the prompt with the words `first` and 1 - share of that with `second`.

    front, side: weights of the prompts with "front view" and "side view" as perpendicular negatives, 0 or more.
    """

    first: str
    second: str
    share: float
    front: float
    side: float


def view_blend(azimuth: float, elevation: float, overhead_elevation: float) -> ViewBlend:
    """The blend of a camera (degrees). Above `overhead_elevation` it is the "overhead view", without negatives."""
    if elevation > overhead_elevation:
        return ViewBlend("overhead view", "overhead view", 1.0, 0.0, 0.0)
    away = abs((azimuth + 180.0) % 360.0 - 180.0)  # from the front, 0 to 180
    if away < 90.0:
        share = 1.0 - away / 90.0
        front, side = decay(FRONT_BEFORE_SIDE, share), decay(SIDE_BEFORE_SIDE, 1.0 - share)
        return ViewBlend("front view", "side view", share, front, side)
    share = 2.0 - away / 90.0
    return ViewBlend("side view", "back view", share, decay(FRONT_BEHIND_SIDE, share), decay(SIDE_BEHIND_SIDE, share))


def decay(numbers: tuple[float, float, float], share: float) -> float:
    """f(r) = a exp(-b r) + c."""
    a, b, c = numbers
    return a * math.exp(-b * share) + c
