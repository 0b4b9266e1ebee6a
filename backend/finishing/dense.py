# SPDX-License-Identifier: GPL-3.0-or-later
"""The given mesh, checked and made ready for finishing."""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError
from ..geometry.clean import drop_bad_faces, merge_vertices
from ..geometry.input_mesh import make_input_mesh
from ..geometry.topology import FloatArray, IntArray, Surface, degenerate_faces, face_cross, smooth_groups
from .asset import DenseMesh
from .paint import SurfacePaint


def dense_mesh(
    vertices: FloatArray,
    faces: IntArray,
    paint: SurfacePaint,
    normals: FloatArray | None = None,
    crease_deg: float = 40.0,
) -> DenseMesh:
    """A mesh of vertices (V, 3), faces (F, 3) and its own normals (V, 3), or smooth ones with creases.

    Raises ConfigError for what `make_input_mesh` refuses, and for a mesh whose faces have no area.
    """
    mesh = make_input_mesh(vertices, faces, paint.albedo)
    surface = Surface(mesh.vertices.astype(np.float64), mesh.faces.astype(np.int64))
    welded = merge_vertices(surface)
    if len(welded.faces):
        welded = drop_bad_faces(Surface(welded.vertices, welded.faces[~degenerate_faces(welded)]))
    if not len(welded.faces):
        raise ConfigError(
            f"none of the mesh's {len(surface.faces)} triangles has an area; needed is a surface; choose another mesh"
        )
    if normals is not None:
        length = np.linalg.norm(normals, axis=1)
        usable = np.isfinite(length) & (length > 1e-6)
        if usable[np.unique(surface.faces)].all():
            unit = normals / np.where(usable, length, 1.0)[:, None]
            return DenseMesh(surface, welded, unit[surface.faces], paint)
    return DenseMesh(surface, welded, _creased_normals(surface, mesh.welded_faces, crease_deg), paint)


def _creased_normals(surface: Surface, welded_faces: IntArray, crease_deg: float) -> FloatArray:
    """(F, 3, 3) area-weighted normals of the corners, smooth except across creases and seams of the mesh itself."""
    positions = np.zeros((int(welded_faces.max()) + 1, 3))
    positions[welded_faces] = surface.vertices[surface.faces]
    groups = smooth_groups(positions, welded_faces, crease_deg).reshape(-1)
    cross = np.repeat(face_cross(surface), 3, axis=0)
    total = np.stack([np.bincount(groups, cross[:, axis]) for axis in range(3)], axis=1)
    unit = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-300)
    return unit[groups].reshape(*surface.faces.shape, 3)
