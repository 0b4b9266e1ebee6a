# SPDX-License-Identifier: GPL-3.0-or-later
"""What counts as a mesh that can be refined. Knows numpy alone, so that a server can ask without loading what refines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dreamwright.shared.limits import MESH_FACES, MESH_VERTICES

from ..errors import ConfigError

SMALLEST_RADIUS = 1e-20  # of the mesh's own unit; below it there is nothing to scale up


def validate_mesh(
    vertices: NDArray[np.float32], faces: NDArray[np.integer], albedo: NDArray[np.float32]
) -> tuple[NDArray[np.float64], float]:
    """The middle of the box of the vertices that faces name, (3,), and the farthest one's distance from it.

    Raises ConfigError unless these are vertices (V, 3), faces (F, 3) and linear albedo (V, 3) of a mesh with a size.
    """
    if faces.ndim != 2 or faces.shape[1:] != (3,) or vertices.ndim != 2 or vertices.shape[1:] != (3,):
        raise ConfigError(
            f"a mesh of vertices {vertices.shape} and faces {faces.shape}; allowed are (V, 3) and (F, 3); triangulate it"
        )
    if not 1 <= len(faces) <= MESH_FACES or not 3 <= len(vertices) <= MESH_VERTICES:
        raise ConfigError(
            f"a mesh of {len(vertices)} vertices and {len(faces)} triangles; allowed are 3 to {MESH_VERTICES} and 1 to {MESH_FACES}; "
            "choose another mesh or decimate it first"
        )
    if albedo.shape != vertices.shape or not np.isfinite(vertices).all() or not np.isfinite(albedo).all():
        raise ConfigError(
            "a mesh whose vertices or colors are missing or not finite; needed is one finite color and place each; repair it"
        )
    if int(faces.min()) < 0 or int(faces.max()) >= len(vertices):
        raise ConfigError(
            f"a face names vertex {int(faces.max())} of {len(vertices)}; allowed are 0 to {len(vertices) - 1}; repair the mesh"
        )
    named = np.zeros(len(vertices), bool)
    named[faces] = True
    used = vertices[named].astype(np.float64)
    center = 0.5 * (used.min(axis=0) + used.max(axis=0))
    radius = float(np.linalg.norm(used - center, axis=1).max())
    if not radius > SMALLEST_RADIUS:
        raise ConfigError("all of the mesh's vertices are at one place; needed is a mesh with a size; choose another")
    return center, radius
