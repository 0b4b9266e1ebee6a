# SPDX-License-Identifier: GPL-3.0-or-later
"""One view of a mesh as numpy arrays, for a camera of docs/developer/conventions.md."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..cameras.poses import Cameras
from ..geometry.topology import FloatArray, IntArray
from .visibility import covered_pixels, nearest_faces, project


@dataclass(frozen=True)
class PixelFragments:
    """The nearest face at each pixel of an (r, r) image; row 0 is the top.

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


@torch.no_grad()
def rasterize(
    vertices: FloatArray, faces: IntArray, position: FloatArray, rotation: FloatArray, focal: float, resolution: int
) -> PixelFragments:
    """Nearest face at each pixel center of one view; see `visibility.nearest_faces`.

    vertices (V, 3), faces (F, 3), position (3,), rotation (3, 3) camera-to-world with columns right, up, back.
    """
    camera = Cameras(
        torch.from_numpy(np.array(position, dtype=np.float64))[None],
        torch.from_numpy(np.array(rotation, dtype=np.float64))[None],
        torch.tensor([float(focal)], dtype=torch.float64),
        *torch.zeros(2, 1),
    )
    triangles = torch.from_numpy(np.array(faces, dtype=np.int64))
    projected = project(torch.from_numpy(np.array(vertices, dtype=np.float64)), camera, resolution)
    buffer = nearest_faces(projected, triangles, resolution)
    fragments = covered_pixels(projected, triangles, buffer)
    weights = torch.zeros(resolution * resolution, 3, dtype=torch.float64)
    weights[fragments.pixel] = fragments.weights
    face, shape = buffer.face[0].numpy(), (resolution, resolution)
    across = ((np.arange(resolution) + 0.5) / resolution - 0.5) / float(focal)
    slant = np.sqrt(1.0 + across[None, :] ** 2 + across[:, None] ** 2)
    depth = np.where(face >= 0, buffer.forward[0].numpy() * slant, 0.0)
    return PixelFragments(face, weights.numpy().reshape(*shape, 3), depth)


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
    """Unlit image of vertex colors (V, 3), of any color space, on a plain background."""
    fragments = rasterize(vertices, faces, position, rotation, focal, resolution)
    color = np.where(
        fragments.mask[..., None],
        fragments.interpolate(faces, colors),
        np.broadcast_to(np.asarray(background, dtype=np.float64), (3,)),
    )
    normal = fragments.interpolate(faces, normals)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    return VertexColorImage(color, fragments.mask, fragments.depth, normal)
