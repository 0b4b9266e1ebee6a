# SPDX-License-Identifier: GPL-3.0-or-later
"""A camera that has a set of boxes in its picture. Pure numpy."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

STEPS = 40  # of centering; each halves what is left at least


@dataclass(frozen=True)
class View:
    """A camera's place in meters and its direction: azimuth 0 looks along +Y at fronts, 90 stands at +X; degrees.

    field_deg: horizontal field of view.
    """

    position: tuple[float, float, float]
    azimuth_deg: float
    elevation_deg: float
    field_deg: float


def frame(
    boxes: Iterable[tuple[Any, Any]],
    azimuth_deg: float,
    elevation_deg: float,
    field_deg: float,
    aspect: float,
    margin: float,
) -> View:
    """The nearest camera of that direction whose picture holds all boxes (low, high), a share `margin` off its edges.

    aspect: width / height. A corner at (r, u) right and up of the axis and depth d is inside where |r| <= d tan(field
    / 2) (1 - margin), and the same upwards.
    """
    corners = np.array([corner for low, high in boxes for corner in itertools.product(*zip(low, high, strict=True))])
    right, up, back = _axes(azimuth_deg, elevation_deg)
    tangent_x = np.tan(np.radians(field_deg) / 2) * (1 - margin)
    tangent_y = np.tan(np.radians(field_deg) / 2) / aspect * (1 - margin)
    center = 0.5 * (corners.min(0) + corners.max(0))
    distance = 0.0
    for _ in range(STEPS):
        r, u, b = ((corners - center) @ axis for axis in (right, up, back))
        distance = float(np.max(np.concatenate([np.abs(r) / tangent_x + b, np.abs(u) / tangent_y + b])))
        depth = distance - b
        # Toward equal room at both sides.
        center = center + 0.5 * distance * (
            right * ((r / depth).max() + (r / depth).min()) / 2 + up * ((u / depth).max() + (u / depth).min()) / 2
        )
    r, u, b = ((corners - center) @ axis for axis in (right, up, back))
    distance = float(np.max(np.concatenate([np.abs(r) / tangent_x + b, np.abs(u) / tangent_y + b])))
    x, y, z = (float(value) for value in center + distance * back)
    return View((x, y, z), azimuth_deg, elevation_deg, field_deg)


def projected(view: View, points: Any, aspect: float) -> Any:
    """(P, 2) places of points in the picture, from (-1, -1) bottom left to (1, 1) top right."""
    right, up, back = _axes(view.azimuth_deg, view.elevation_deg)
    offset = np.asarray(points, np.float64) - np.array(view.position)
    tangent = np.tan(np.radians(view.field_deg) / 2)
    depth = -offset @ back
    return np.stack([offset @ right / (depth * tangent), offset @ up / (depth * tangent / aspect)], -1)


def _axes(azimuth_deg: float, elevation_deg: float) -> tuple[Any, Any, Any]:
    """Unit vectors right, up and back of a camera (docs/developer/conventions.md)."""
    azimuth, elevation = np.radians(azimuth_deg), np.radians(elevation_deg)
    back = np.array([np.cos(elevation) * np.sin(azimuth), -np.cos(elevation) * np.cos(azimuth), np.sin(elevation)])
    right = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    return right, np.cross(back, right), back
