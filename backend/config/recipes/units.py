# SPDX-License-Identifier: GPL-3.0-or-later
"""Published numbers of threestudio in our units (docs/developer/conventions.md)."""

from __future__ import annotations

import math

STEP_FACTOR = 1.732  # threestudio's marching step is this times 2 radius / num_samples_per_ray; ours is 2 radius / n


def focal_of_fov(degrees: float) -> float:
    """Focal length in image widths of a field of view: 0.5 / tan(fov / 2)."""
    return 0.5 / math.tan(math.radians(degrees) / 2)


def per_pixel(weight: float, resolution: int) -> float:
    """The weight of a penalty that is summed over a view's pixels, of one that is averaged over them."""
    return weight / resolution**2


def samples(published: int) -> int:
    """Samples a ray that have the step length of `num_samples_per_ray`."""
    return round(published / STEP_FACTOR)
