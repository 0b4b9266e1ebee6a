# SPDX-License-Identifier: GPL-3.0-or-later
"""Chamfer distance and F-score of two surfaces, by points sampled uniformly on both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ..geometry.topology import FloatArray
from .silhouettes import Solid

POINTS = 8000  # on each surface
F_DISTANCE = 0.04  # scene units: 4% of the bounding diameter


@dataclass(frozen=True)
class SurfaceDistance:
    """chamfer: mean of the two directed mean distances, scene units. f_score: at `F_DISTANCE`, in [0, 1]."""

    chamfer: float
    f_score: float


def sample_surface(solid: Solid, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points (count, 3), uniform in area."""
    return sample_faces(solid, count, rng)[0]


def sample_faces(solid: Solid, count: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points (count, 3), uniform in area, and the face (count,) of each."""
    a, b, c = (solid.vertices[solid.faces[:, k]] for k in range(3))
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    face = rng.choice(len(areas), size=count, p=areas / areas.sum())
    u, v = rng.random((2, count))
    flip = u + v > 1  # mirrors the parallelogram's other half onto the triangle
    u, v = np.where(flip, 1 - u, u)[:, None], np.where(flip, 1 - v, v)[:, None]
    return a[face] + u * (b - a)[face] + v * (c - a)[face], face


def surface_distance(first: FloatArray, second: FloatArray) -> SurfaceDistance:
    """Chamfer distance and F-score of two surfaces, from points (n, 3) and (m, 3) drawn uniformly on each."""
    forth, back = cKDTree(second).query(first)[0], cKDTree(first).query(second)[0]
    precision, recall = (forth < F_DISTANCE).mean(), (back < F_DISTANCE).mean()
    f_score = 2 * precision * recall / max(1e-9, precision + recall)
    return SurfaceDistance(float(0.5 * (forth.mean() + back.mean())), float(f_score))
