# SPDX-License-Identifier: GPL-3.0-or-later
"""Nearest points and ray hits on a triangle mesh, exact, by libigl's tree of bounding boxes."""

from __future__ import annotations

from dataclasses import dataclass

import igl
import numpy as np

from ..geometry.topology import FloatArray, IntArray, Surface


@dataclass(frozen=True)
class SurfacePoints:
    """Points of a mesh: face (m,), -1 where there is none; barycentric (m, 3); distance (m,) from what was asked."""

    face: IntArray
    barycentric: FloatArray
    distance: FloatArray


class SurfaceSearch:
    """Searches on one surface."""

    def __init__(self, surface: Surface) -> None:
        self._vertices = np.ascontiguousarray(surface.vertices, dtype=np.float64)
        self._faces = np.ascontiguousarray(surface.faces, dtype=np.int64)
        self._tree = igl.AABB()
        self._tree.init(self._vertices, self._faces)

    def nearest(self, points: FloatArray) -> SurfacePoints:
        """The nearest points of the surface to points (m, 3)."""
        points = np.ascontiguousarray(points, dtype=np.float64)
        squared, face, place = self._tree.squared_distance(self._vertices, self._faces, points)
        face = np.asarray(face, dtype=np.int64).reshape(-1)
        distance = np.sqrt(np.maximum(np.asarray(squared).reshape(-1), 0.0))
        return SurfacePoints(face, self._barycentric(face, np.asarray(place)), distance)

    def points(self, found: SurfacePoints) -> FloatArray:
        """The points (m, 3) themselves, on the surface."""
        return np.einsum("mc,mck->mk", found.barycentric, self._vertices[self._faces[found.face]])

    def first_hit(self, origins: FloatArray, directions: FloatArray) -> SurfacePoints:
        """Where rays from origins (m, 3) along unit directions (m, 3) first meet the surface, from either side."""
        origins = np.ascontiguousarray(origins, dtype=np.float64)
        directions = np.ascontiguousarray(directions, dtype=np.float64)
        face, distance, uv = self._tree.intersect_ray_first(self._vertices, self._faces, origins, directions)
        face = np.asarray(face, dtype=np.int64).reshape(-1)
        uv = np.where((face >= 0)[:, None], np.asarray(uv, dtype=np.float64).reshape(-1, 2), 0.0)
        weights = np.stack([1.0 - uv.sum(axis=1), uv[:, 0], uv[:, 1]], axis=1)
        distance = np.asarray(distance, dtype=np.float64).reshape(-1)
        return SurfacePoints(face, weights, np.where(face >= 0, distance, np.inf))

    def _barycentric(self, face: IntArray, points: FloatArray) -> FloatArray:
        """(m, 3) coordinates of points in the planes of faces, clipped to the face; its first corner without area."""
        a, b, c = (self._vertices[self._faces[face, corner]] for corner in range(3))
        first, second, offset = b - a, c - a, points - a
        dot = [np.einsum("mk,mk->m", x, y) for x, y in
               ((first, first), (first, second), (second, second), (offset, first), (offset, second))]  # fmt: skip
        determinant = dot[0] * dot[2] - dot[1] ** 2
        safe = np.where(determinant > 0, determinant, 1.0)
        u = np.where(determinant > 0, (dot[2] * dot[3] - dot[1] * dot[4]) / safe, 0.0)
        v = np.where(determinant > 0, (dot[0] * dot[4] - dot[1] * dot[3]) / safe, 0.0)
        weights = np.clip(np.stack([1.0 - u - v, u, v], axis=1), 0.0, 1.0)
        return weights / weights.sum(axis=1, keepdims=True)
