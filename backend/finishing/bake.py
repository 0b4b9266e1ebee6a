# SPDX-License-Identifier: GPL-3.0-or-later
"""Baking: albedo and tangent-space normal map of a level, looked up on the dense mesh along its normals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..geometry.color import linear_to_display
from ..geometry.texture import covered_texels, fill_gaps
from ..geometry.topology import FloatArray, IntArray, diagonal
from .asset import DenseMesh, Level, Maps
from .surface_search import SurfacePoints, SurfaceSearch

BATCH = 1 << 16  # texels between two reports of progress
OVERLAP = 1e-3  # of the reach: rays start as much behind the surface, so that a dense surface right there is met
FLAT = (128, 128, 255)  # texels that no face has, and the normal map's neutral value


class Baker:
    """Looks up points of the dense mesh from points of a level."""

    def __init__(self, dense: DenseMesh, search: SurfaceSearch, reach: float) -> None:
        """`reach`: share of the dense mesh's diagonal that a ray goes."""
        self._dense, self._search = dense, search
        self._reach = reach * diagonal(dense.surface)
        corners = dense.surface.vertices[dense.surface.faces]
        self._face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])

    def land(self, points: FloatArray, normals: FloatArray) -> SurfacePoints:
        """Points of the dense mesh for points (m, 3) with unit normals (m, 3) of a level.

        The nearer hit of the rays along the normal and against it that faces the same way and lies within the reach;
        else the nearest point.
        """
        back = OVERLAP * self._reach
        face, weights = np.full(len(points), -1), np.zeros((len(points), 3))
        distance = np.full(len(points), np.inf)
        for sign in (1.0, -1.0):
            direction = sign * normals
            hit = self._search.first_hit(points - back * direction, direction)
            facing = (self._face_normals[hit.face] * normals).sum(axis=1) > 0
            length = np.abs(hit.distance - back)
            better = (hit.face >= 0) & facing & (length <= self._reach) & (length < distance)
            face[better], weights[better], distance[better] = hit.face[better], hit.barycentric[better], length[better]
        lost = np.flatnonzero(face < 0)
        if len(lost):
            near = self._search.nearest(points[lost])
            face[lost], weights[lost], distance[lost] = near.face, near.barycentric, near.distance
        return SurfacePoints(face, weights, distance)

    def normals_at(self, landed: SurfacePoints, fallback: FloatArray) -> FloatArray:
        """Unit normals (m, 3) of the dense mesh there; `fallback` where they point to the other side."""
        found = np.einsum("mc,mck->mk", landed.barycentric, self._dense.normals[landed.face])
        length = np.linalg.norm(found, axis=1, keepdims=True)
        found = found / np.maximum(length, 1e-12)
        usable = (length[:, 0] > 1e-6) & ((found * fallback).sum(axis=1) > 0)
        return np.where(usable[:, None], found, fallback)

    def albedo_at(self, landed: SurfacePoints) -> FloatArray:
        """Linear albedo (m, 3) of the dense mesh there."""
        return self._dense.paint.linear_at(landed.face, landed.barycentric)

    def vertex_albedo(self, level: Level) -> FloatArray:
        """Linear albedo (V, 3) for a level's vertices."""
        return np.clip(self.albedo_at(self.land(level.surface.vertices, level.normals)), 0.0, 1.0)


@dataclass(frozen=True)
class Frames:
    """Interpolated tangent frames at m points: normal, tangent and bitangent (m, 3), not normalized."""

    normal: FloatArray
    tangent: FloatArray
    bitangent: FloatArray

    @classmethod
    def of(cls, level: Level, face: IntArray, barycentric: FloatArray) -> Frames:
        """The frames of a level with tangents, as a pixel shader of MikkTSpace has them."""
        if level.unwrapping is None or level.tangents is None:
            raise ValueError("a level without tangents has no frames")
        rows = level.unwrapping.corners[face]
        normal = np.einsum("mc,mck->mk", barycentric, level.normals[level.unwrapping.vertex[rows]])
        tangent = np.einsum("mc,mck->mk", barycentric, level.tangents[rows, :3])
        sign = level.tangents[rows[:, 0], 3][:, None]
        return cls(normal, tangent, sign * np.cross(normal, tangent))

    def to_tangent_space(self, normals: FloatArray) -> FloatArray:
        """Unit n (m, 3) with n.x tangent + n.y bitangent + n.z normal along normals (m, 3)."""
        frame = np.stack([self.tangent, self.bitangent, self.normal], axis=-1)
        usable = np.abs(np.linalg.det(frame)) > 1e-6
        frame = np.where(usable[:, None, None], frame, np.eye(3))
        local = np.linalg.solve(frame, normals[..., None])[..., 0]
        local = np.where(usable[:, None], local, [0.0, 0.0, 1.0])
        return local / np.maximum(np.linalg.norm(local, axis=1, keepdims=True), 1e-12)

    def to_object_space(self, local: FloatArray) -> FloatArray:
        """Unit normals (m, 3) of tangent-space normals (m, 3)."""
        found = local[:, :1] * self.tangent + local[:, 1:2] * self.bitangent + local[:, 2:] * self.normal
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def bake(level: Level, baker: Baker, size: int, normal_map: bool) -> Iterator[float | Level]:
    """Yield shares in (0, 1) of the work, then the level with its maps of `size` texels a side."""
    if level.unwrapping is None:
        raise ValueError("a level without UV coordinates cannot be baked")
    texels = covered_texels(level.unwrapping, size)
    albedo = np.zeros((size * size, 3), dtype=np.uint8)
    normal = np.tile(np.array(FLAT, dtype=np.uint8), (size * size, 1))
    faces, vertices = level.surface.faces, level.surface.vertices
    for start in range(0, len(texels.pixel), BATCH):
        rows = slice(start, start + BATCH)
        face, weights, pixel = texels.face[rows], texels.barycentric[rows], texels.pixel[rows]
        points = np.einsum("mc,mck->mk", weights, vertices[faces[face]])
        smooth = np.einsum("mc,mck->mk", weights, level.normals[faces[face]])
        smooth /= np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-12)
        landed = baker.land(points, smooth)
        albedo[pixel] = np.rint(255.0 * linear_to_display(baker.albedo_at(landed))).astype(np.uint8)
        if normal_map:
            local = Frames.of(level, face, weights).to_tangent_space(baker.normals_at(landed, smooth))
            normal[pixel] = encode_normals(local)
        yield min(0.99, (start + BATCH) / max(len(texels.pixel), 1))
    shape = (size, size, 3)
    maps = Maps(
        fill_gaps(albedo.reshape(shape), texels.pixel),
        fill_gaps(normal.reshape(shape), texels.pixel) if normal_map else None,
    )
    yield replace(level, maps=maps)


def encode_normals(local: FloatArray) -> FloatArray:
    """uint8 (m, 3): 255 (0.5 n + 0.5), rounded half up, so that (0, 0, 1) becomes (128, 128, 255)."""
    return np.floor(255.0 * (0.5 * np.clip(local, -1.0, 1.0) + 0.5) + 0.5).astype(np.uint8)


def decode_normals(texels: FloatArray) -> FloatArray:
    """n (m, 3) = texel / 255 * 2 - 1 of (possibly filtered) texels, not normalized; 128 stands for 0.5 / 127.5."""
    return np.asarray(texels, dtype=np.float64) / 255.0 * 2.0 - 1.0
