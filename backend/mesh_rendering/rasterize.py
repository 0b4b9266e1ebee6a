# SPDX-License-Identifier: GPL-3.0-or-later
"""A z-buffer rasterizer in numpy: a mesh's color, mask, depth and normal seen by a camera of docs/developer/conventions.md."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry.topology import FloatArray, IntArray

NEAR = 1e-4  # faces with a vertex nearer than this, or behind the camera, are left out: cameras stay outside the mesh
FRAGMENTS = 1 << 21  # candidates handled at a time


@dataclass(frozen=True)
class Fragments:
    """What each pixel of an (r, r) picture sees first; row 0 is the top.

    face (r, r) int64, -1 where empty; barycentric (r, r, 3) perspective-correct; depth (r, r) distance along the
    unit ray through the pixel's center, 0 where empty.
    """

    face: IntArray
    barycentric: FloatArray
    depth: FloatArray

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(r, r) True where a face is seen."""
        return self.face >= 0

    def interpolate(self, faces: IntArray, attribute: FloatArray) -> FloatArray:
        """A vertex attribute (V, k) at the pixels: (r, r, k), 0 where empty."""
        values = np.einsum("hwc,hwck->hwk", self.barycentric, attribute[faces[np.maximum(self.face, 0)]])
        return np.where(self.mask[..., None], values, 0.0)


@dataclass(frozen=True)
class VertexColorImage:
    """color (r, r, 3) on the background, mask (r, r) bool, depth (r, r), unit world normal (r, r, 3) or 0."""

    color: FloatArray
    mask: NDArray[np.bool_]
    depth: FloatArray
    normal: FloatArray


def orbit_axes(azimuth_deg: float, elevation_deg: float) -> FloatArray:
    """Rotation whose columns are right, up, back of a camera that looks at the origin, Z up: (3, 3)."""
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    back = np.array(
        [math.cos(elevation) * math.sin(azimuth), -math.cos(elevation) * math.cos(azimuth), math.sin(elevation)]
    )
    right = np.array([math.cos(azimuth), math.sin(azimuth), 0.0])
    return np.stack([right, np.cross(back, right), back], axis=1)


def project(
    vertices: FloatArray, position: FloatArray, rotation: FloatArray, focal: float, resolution: int
) -> tuple[FloatArray, FloatArray]:
    """Pixel coordinates (V, 2) (column, row; whole numbers are pixel centers) and distance before the camera (V,).

    column = (focal x / z + 1/2) r - 1/2, row = (1/2 - focal y / z) r - 1/2 with x right, y up, z forward.
    """
    local = (np.asarray(vertices, dtype=np.float64) - position) @ rotation
    forward = -local[:, 2]
    scale = focal / np.where(np.abs(forward) < NEAR, NEAR, forward)
    columns = (local[:, 0] * scale + 0.5) * resolution - 0.5
    rows = (0.5 - local[:, 1] * scale) * resolution - 0.5
    return np.stack([columns, rows], axis=1), forward


def rasterize(
    vertices: FloatArray, faces: IntArray, position: FloatArray, rotation: FloatArray, focal: float, resolution: int
) -> Fragments:
    """Nearest face at each pixel center; both sides of faces count, borders belong to the face.

    vertices (V, 3), faces (F, 3), position (3,), rotation (3, 3) camera-to-world with columns right, up, back.
    """
    position, rotation = np.asarray(position, dtype=np.float64), np.asarray(rotation, dtype=np.float64)
    points, forward = project(vertices, position, rotation, float(focal), resolution)
    corners, depths = points[faces], forward[faces]
    edge1, edge2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    low = np.ceil(np.maximum(corners.min(axis=1), 0) - 1e-9)
    high = np.floor(np.minimum(corners.max(axis=1), resolution - 1) + 1e-9)
    seen = np.flatnonzero((depths.min(axis=1) > NEAR) & (np.abs(area) > 1e-12) & (low <= high).all(axis=1))
    low, size = low[seen].astype(np.int64), (high[seen] - low[seen] + 1).astype(np.int64)
    counts = size[:, 0] * size[:, 1]
    ends = np.cumsum(counts)

    nearest = np.zeros(resolution * resolution)  # largest 1 / forward distance so far
    face = np.full(resolution * resolution, -1, dtype=np.int64)
    weights = np.zeros((resolution * resolution, 3))
    start = 0
    while start < len(seen):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + FRAGMENTS, side="right")))
        batch = np.arange(start, stop)
        which = np.repeat(batch, counts[batch])
        index = np.arange(len(which)) - np.repeat(ends[batch] - counts[batch] - done, counts[batch])
        columns = low[which, 0] + index % size[which, 0]
        rows = low[which, 1] + index // size[which, 0]
        triangle = seen[which]
        dx, dy = columns - corners[triangle, 0, 0], rows - corners[triangle, 0, 1]
        b1 = (dx * edge2[triangle, 1] - dy * edge2[triangle, 0]) / area[triangle]
        b2 = (dy * edge1[triangle, 0] - dx * edge1[triangle, 1]) / area[triangle]
        inside = np.flatnonzero((b1 >= -1e-9) & (b2 >= -1e-9) & (b1 + b2 <= 1 + 1e-9))
        triangle, pixel = triangle[inside], rows[inside] * resolution + columns[inside]
        screen = np.stack([1 - b1[inside] - b2[inside], b1[inside], b2[inside]], axis=1)
        over_depth = screen / depths[triangle]  # 1 / z is linear on the screen
        inverse = over_depth.sum(axis=1)
        # Far fragments are written first, so that the nearest of a pixel is the one that stays.
        order = np.argsort(inverse, kind="stable")
        order = order[inverse[order] > nearest[pixel[order]]]
        target = pixel[order]
        nearest[target] = inverse[order]
        face[target] = triangle[order]
        weights[target] = over_depth[order] / inverse[order, None]
        start = stop

    shape = (resolution, resolution)
    across = ((np.arange(resolution) + 0.5) / resolution - 0.5) / float(focal)
    slant = np.sqrt(1.0 + across[None, :] ** 2 + across[:, None] ** 2)
    depth = np.where(face >= 0, 1.0 / np.maximum(nearest, 1e-12), 0.0).reshape(shape) * slant
    return Fragments(face.reshape(shape), weights.reshape(*shape, 3), depth)


def render_vertex_colors(
    vertices: FloatArray,
    faces: IntArray,
    colors: FloatArray,
    normals: FloatArray,
    position: FloatArray,
    rotation: FloatArray,
    focal: float,
    resolution: int,
    background: FloatArray | float = 1.0,
) -> VertexColorImage:
    """Unlit picture of vertex colors (V, 3), in whatever space they are, on a plain background: see `VertexColorImage`."""
    fragments = rasterize(vertices, faces, position, rotation, focal, resolution)
    color = np.where(
        fragments.mask[..., None],
        fragments.interpolate(faces, colors),
        np.broadcast_to(np.asarray(background, dtype=np.float64), (3,)),
    )
    normal = fragments.interpolate(faces, normals)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    return VertexColorImage(color, fragments.mask, fragments.depth, normal)
