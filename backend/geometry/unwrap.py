# SPDX-License-Identifier: GPL-3.0-or-later
"""UV unwrapping: charts of a mesh, cut and packed into a square image by xatlas."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ..errors import ConfigError
from .topology import FloatArray, IntArray, Surface, face_areas


@dataclass(frozen=True)
class Unwrapping:
    """UV coordinates of the corners of a mesh's faces; a vertex on a seam has several.

    uv (U, 2) float32 in [0, 1]: u to the right, v down from the image's top left, as in glTF. corners (F, 3) int32 rows
    of uv. vertex (U,) int32: the vertex of each row, so vertex[corners] are the mesh's faces.
    """

    uv: NDArray[np.float32]
    corners: NDArray[np.int32]
    vertex: NDArray[np.int32]


def check_unwrapper() -> None:
    """Raise ConfigError where xatlas is not installed; call it before a long run that will need it."""
    if find_spec("xatlas") is None:
        raise ConfigError(
            "a texture needs the package xatlas, which is not installed; install it with `pip install xatlas`, or "
            "set --texture 0 (mesh.texture=0) for vertex colors"
        )


def unwrap(vertices: FloatArray, faces: IntArray, size: int) -> Unwrapping:
    """Charts of a mesh, packed with room between them for an image of `size` texels a side.

    vertices (V, 3), faces (F, 3), triangles in their old order. Faces without area get one point, that of a neighbor.
    Raises ConfigError without xatlas. Runs for about 0.1 ms a triangle and cannot be interrupted.
    """
    check_unwrapper()
    import xatlas

    positions = np.asarray(vertices, dtype=np.float64)
    area = float(face_areas(Surface(positions, faces)).mean())
    # xatlas drops faces below an absolute area: in meters a small prop would lose them all.
    positions = (positions - positions.mean(axis=0)) / max(np.sqrt(area), 1e-30)
    atlas, packing = xatlas.Atlas(), xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = size, max(2, size // 256), True
    atlas.add_mesh(positions.astype(np.float32), np.ascontiguousarray(faces, dtype=np.uint32))
    atlas.generate(xatlas.ChartOptions(), packing)
    vertex, corners, uv = atlas[0]
    # Its atlas comes out a little larger than requested and not quite square.
    texels = np.asarray(uv, dtype=np.float64) * [atlas.width, atlas.height]
    scaled = (texels / max(atlas.width, atlas.height)).astype(np.float32)
    vertex, corners = vertex.astype(np.int32), corners.astype(np.int32)
    return Unwrapping(_with_dropped_faces(scaled, vertex, positions), corners, vertex)


def _with_dropped_faces(
    uv: NDArray[np.float32], vertex: NDArray[np.int32], positions: FloatArray
) -> NDArray[np.float32]:
    """uv with that of the nearest vertex for corners of faces in no chart, which xatlas leaves at 0."""
    lost = (uv == 0).all(axis=1)
    if not lost.any() or lost.all():
        return uv
    placed = np.flatnonzero(~lost)
    _, nearest = cKDTree(positions[vertex[placed]]).query(positions[vertex[lost]])
    uv = uv.copy()
    uv[lost] = uv[placed[nearest]]
    return uv
