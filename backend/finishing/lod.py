# SPDX-License-Identifier: GPL-3.0-or-later
"""Levels of detail: how many triangles each has, and the size on the screen at which it may be shown."""

from __future__ import annotations

import numpy as np

from ..geometry.topology import Surface

FEWEST = 12  # triangles of the coarsest level


def level_budgets(triangles: int, levels: int, ratio: float) -> list[int]:
    """Triangles of the coarser levels, each `ratio` of the one before, down to 12."""
    budgets: list[int] = []
    for _ in range(levels):
        following = max(FEWEST, int((budgets[-1] if budgets else triangles) * ratio))
        if following >= (budgets[-1] if budgets else triangles):
            break
        budgets.append(following)
    return budgets


def bounding_diameter(surface: Surface) -> float:
    """Diameter of the sphere about the middle of the bounding box that holds all vertices."""
    low, high = surface.vertices.min(axis=0), surface.vertices.max(axis=0)
    return 2.0 * float(np.linalg.norm(surface.vertices - 0.5 * (low + high), axis=1).max())


def screen_size(error: float, diameter: float, pixel_error: float, screen_height: int) -> float:
    """s = pixel_error * diameter / (error * screen_height), at most 1.

    error: Hausdorff distance of the level from the finest one. At the size s, a share of the screen's height, the
    bounding sphere of `diameter` covers s * screen_height pixels, so a distance `error` in the same unit covers
    error / diameter * s * screen_height: `pixel_error` pixels.
    """
    return min(1.0, pixel_error * diameter / max(error * screen_height, 1e-300))


def falling(sizes: list[float]) -> list[float]:
    """The sizes of a chain with none larger than the one before, so that one level is meant at each size."""
    return [float(size) for size in np.minimum.accumulate(sizes)]
