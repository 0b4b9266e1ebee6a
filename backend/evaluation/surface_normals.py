# SPDX-License-Identifier: GPL-3.0-or-later
"""Lumpiness and wrong slopes of a surface: its mean dihedral angle, and the angle between two surfaces' normals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ..geometry.clean import merge_vertices
from ..geometry.topology import Surface, face_cross, half_edges, paired_half_edges
from .silhouettes import Solid
from .surfaces import sample_faces

# Of two surfaces of radius 0.5, the nearest of 40,000 points lies 0.005 aside, as far as normals of neighbors differ.
QUERIES, TARGETS = 8000, 40000


@dataclass(frozen=True)
class OrientedPoints:
    """Points (n, 3) of a surface in scene units and the unit outward normals (n, 3) of its faces there."""

    points: NDArray[np.float64]
    normals: NDArray[np.float64]


def mean_dihedral_deg(solid: Solid) -> float:
    """Mean angle in degrees between the normals of two faces that share an edge, weighted by the edge's length.

    0 for a flat surface. Vertices at one position count as one. The weight makes the diagonals of a wall count by their
    length, not their number; finer triangles still lower the mean, so only surfaces of equally many compare. Edges of
    one or more than two faces, and those of faces without area, are left out.
    """
    merged = merge_vertices(Surface(np.asarray(solid.vertices, np.float64), np.asarray(solid.faces, np.int64)))
    if not len(merged.faces):
        return 0.0
    cross = face_cross(merged)
    area = np.linalg.norm(cross, axis=1)
    normals = cross / np.maximum(area, 1e-300)[:, None]
    directed, _ = half_edges(merged.faces)
    first, second = paired_half_edges(merged.faces)
    one, other = first % len(merged.faces), second % len(merged.faces)
    ends = merged.vertices[directed[first]]
    weight = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1) * ((area[one] > 0) & (area[other] > 0))
    angle = angle_deg(normals[one], normals[other])
    return float((weight * angle).sum() / weight.sum()) if weight.sum() > 0 else 0.0


def oriented_points(solid: Solid, count: int, rng: np.random.Generator) -> OrientedPoints:
    """`count` points of the surface, uniform in area, with their faces' normals."""
    points, face = sample_faces(solid, count, rng)
    return OrientedPoints(points, face_normals(solid)[face])


def face_normals(solid: Solid) -> NDArray[np.float64]:
    """Unit normal of each face, outwards: (F, 3); 0 for one without area."""
    cross = face_cross(Surface(solid.vertices, solid.faces))
    return cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-300)


def normal_error_deg(solid: Solid, truth: OrientedPoints, seed: int = 0) -> float:
    """Mean angle in degrees between normals at nearest points, of both directions' means; `seed` draws the points.

    `truth` holds many points, in random order. Where a thin plate lies more than half its thickness off, the nearest
    points are of opposite sides.
    """
    found = oriented_points(solid, TARGETS, np.random.default_rng(seed))
    return 0.5 * (_directed_error(found, truth) + _directed_error(truth, found))


def _directed_error(queries: OrientedPoints, targets: OrientedPoints) -> float:
    nearest = cKDTree(targets.points).query(queries.points[:QUERIES])[1]
    return float(angle_deg(queries.normals[:QUERIES], targets.normals[nearest]).mean())


def angle_deg(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Angle between unit vectors (n, 3), exact for small ones too: (n,) in [0, 180]."""
    chord, sum_ = np.linalg.norm(first - second, axis=1), np.linalg.norm(first + second, axis=1)
    return np.degrees(2.0 * np.arctan2(chord, sum_))
