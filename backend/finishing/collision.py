# SPDX-License-Identifier: GPL-3.0-or-later
"""Convex collision: the mesh is cut into nearly convex parts (CoACD, Wei et al. 2022), whose hulls hold all of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial import ConvexHull

from ..geometry.topology import FloatArray, Surface, diagonal
from .asset import Hull
from .convex_parts import LIMIT_S, convex_parts

THICKNESS = 0.01  # of the diagonal, given to a flat mesh so that its hull has a volume
MARGIN = 1e-9  # of the diagonal, by which a vertex may lie outside of a hull
DIRECTIONS = np.array([[x, y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) > (0, 0, 0)])


def is_flat(surface: Surface) -> bool:
    """Whether all vertices lie in one plane, to a millionth of the diagonal."""
    local = surface.vertices - surface.vertices.mean(axis=0)
    return bool(np.linalg.svd(local, compute_uv=False)[-1] / np.sqrt(len(local)) <= 1e-6 * diagonal(surface))


def convex_hulls(
    surface: Surface,
    points: FloatArray,
    count: int,
    vertices: int,
    concavity: float,
    should_stop: Callable[[], bool] = lambda: False,
    limit_s: float = LIMIT_S,
) -> tuple[tuple[Hull, ...], str]:
    """At most `count` hulls of a surface that together hold its vertices and points (m, 3), the largest first.

    surface: of a few hundred triangles. vertices: most of each hull. A hull with fewer corners than its part cuts some
    of it off, and is then scaled about its middle until nothing is left out. A flat surface gets one thin slab. Returns
    a warning too, "" for none: where the search takes longer than `limit_s`, all is one hull. Raises StoppedError.
    """
    points = np.concatenate([surface.vertices, points])
    surface = Surface(np.asarray(surface.vertices, np.float64), np.asarray(surface.faces, np.int64))
    if is_flat(surface):
        return (_slab(points, diagonal(surface)),), "the mesh is flat: its collision is a slab of 1% of its diagonal"
    parts = convex_parts(surface, count, concavity, should_stop, limit_s) if count > 1 else [points]
    warning = ""
    if parts is None:
        parts = [points]
        warning = (
            f"the search for convex parts took longer than {limit_s} s: the collision is one hull; give a larger "
            "finish.concavity"
        )
    hulls = [few_cornered_hull(part, vertices) for part in parts if len(part) >= 4]
    hulls = _grown(hulls, points, MARGIN * diagonal(surface))
    return tuple(sorted(hulls, key=lambda hull: -ConvexHull(hull.vertices).volume)), warning


def hull_of(points: FloatArray) -> Hull:
    """The convex hull of points (m, 3), its faces counter-clockwise from outside. Raises QhullError for flat points."""
    hull = ConvexHull(points)
    used, faces = np.unique(hull.simplices, return_inverse=True)
    vertices, faces = np.asarray(points)[used], faces.reshape(-1, 3)
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    inward = (np.cross(b - a, c - a) * hull.equations[:, :3]).sum(axis=1) < 0
    faces[inward] = faces[inward][:, ::-1]
    return Hull(vertices, faces)


def few_cornered_hull(points: FloatArray, count: int) -> Hull:
    """The hull of at most `count` of the points (m, 3), each the one that lies farthest outside of those before."""
    corners = np.asarray(points)[ConvexHull(points).vertices]
    along = (corners - corners.mean(axis=0)) @ DIRECTIONS.T
    extremes = np.unique(np.concatenate([along.argmin(axis=0), along.argmax(axis=0)]))
    if len(extremes) >= count:
        extremes = extremes[np.linspace(0, len(extremes) - 1, count).astype(np.int64)]
    chosen = list(extremes)
    while len(chosen) < min(count, len(corners)):
        distance = outside(hull_of(corners[chosen]), corners)
        farthest = int(distance.argmax())
        if farthest in chosen or distance[farthest] <= 0:
            break
        chosen.append(farthest)
    return hull_of(corners[chosen])


def outside(hull: Hull, points: FloatArray) -> FloatArray:
    """(m,) largest signed distance of points (m, 3) from the planes of a hull; positive outside."""
    equations = ConvexHull(hull.vertices).equations
    return (np.asarray(points) @ equations[:, :3].T + equations[:, 3]).max(axis=1)


def _grown(hulls: list[Hull], points: FloatArray, margin: float) -> list[Hull]:
    """The hulls, each scaled about its middle to hold the points that no hull holds and that are nearest to it."""
    distances = np.stack([outside(hull, points) for hull in hulls])
    nearest = distances.argmin(axis=0)
    lost = distances.min(axis=0) > margin
    grown = []
    for number, hull in enumerate(hulls):
        middle = hull.vertices.mean(axis=0)
        equations = ConvexHull(hull.vertices).equations
        own = points[lost & (nearest == number)] - middle
        # Of a plane n x = d about the middle, the scale that takes it through a point p is n p / d.
        reach = own @ equations[:, :3].T / -(equations[:, :3] @ middle + equations[:, 3])
        grown.append(Hull(middle + max(1.0, reach.max(initial=0.0)) * (hull.vertices - middle), hull.faces))
    return grown


def _slab(points: FloatArray, size: float) -> Hull:
    """The convex hull of points of a plane, thickened across it."""
    normal = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][-1]
    half = 0.5 * THICKNESS * size * normal
    return hull_of(np.concatenate([points + half, points - half]))
