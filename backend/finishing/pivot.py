# SPDX-License-Identifier: GPL-3.0-or-later
"""Pivot and scale: where the origin of a mesh lies and how tall it is."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..errors import ConfigError
from ..geometry.topology import FloatArray


def placement(
    vertices: FloatArray, pivot: Literal["base", "center", "keep"], height_m: float
) -> tuple[float, FloatArray]:
    """scale and offset (3,) of placed = scale * vertices + offset.

    base: the middle of the lower side of the bounding box at the origin; center: the middle of the box; keep: scaled
    about the origin. height_m 0 keeps the size. Raises ConfigError for a height of a mesh that has none.
    """
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    extent = float(high[2] - low[2])
    if height_m and extent <= 0:
        raise ConfigError(f"the mesh is flat, so its height cannot become {height_m} m; leave finish.height_m at 0")
    scale = height_m / extent if height_m else 1.0
    middle = 0.5 * (low + high)
    if pivot == "keep":
        return scale, np.zeros(3)
    fixed = middle if pivot == "center" else np.array([middle[0], middle[1], low[2]])
    return scale, -scale * fixed
