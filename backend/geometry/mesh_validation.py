# SPDX-License-Identifier: GPL-3.0-or-later
"""Validate a mesh for refinement. Imports numpy alone, so that a server can call it without loading torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dreamwright.shared.limits import MESH_FACES, MESH_VERTICES
from dreamwright.shared.numbers import number_text

from ..errors import ConfigError

SMALLEST_RADIUS, LARGEST_RADIUS = 1e-20, 1e20  # of the mesh's own unit: their squares are still float32 numbers
FINEST_SHARE = 1e-9  # of the distance from the origin: below it float64 leaves fewer than 7 digits of the shape


def validate_mesh(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], albedo: NDArray[np.floating]
) -> tuple[NDArray[np.float64], float]:
    """Center (3,) of the bounding box of the vertices that faces use, and the radius about it of the farthest one.

    vertices (V, 3) float32 or float64, faces (F, 3), albedo (V, 3) linear. Raises ConfigError for other shapes, counts
    beyond the limits, numbers that are not finite, wrong indices, and a mesh without a size.
    """
    if faces.ndim != 2 or faces.shape[1:] != (3,) or vertices.ndim != 2 or vertices.shape[1:] != (3,):
        raise ConfigError(
            f"a mesh of vertices {vertices.shape} and faces {faces.shape}; allowed are (V, 3) and (F, 3); "
            "triangulate it"
        )
    if not 1 <= len(faces) <= MESH_FACES or not 3 <= len(vertices) <= MESH_VERTICES:
        raise ConfigError(
            f"a mesh of {len(vertices)} vertices and {len(faces)} triangles; allowed are 3 to {MESH_VERTICES} and "
            f"1 to {MESH_FACES}; choose another mesh or decimate it first"
        )
    if albedo.shape != vertices.shape or not np.isfinite(vertices).all() or not np.isfinite(albedo).all():
        raise ConfigError(
            "a mesh whose vertices or colors are missing or not finite; needed is one finite position and color each; "
            "repair it"
        )
    if int(faces.min()) < 0 or int(faces.max()) >= len(vertices):
        wrong = int(faces.min()) if int(faces.min()) < 0 else int(faces.max())
        raise ConfigError(
            f"a face names vertex {wrong} of {len(vertices)}; allowed are 0 to {len(vertices) - 1}; repair the mesh"
        )
    named = np.zeros(len(vertices), bool)
    named[faces] = True
    used = vertices[named].astype(np.float64)
    low, high = used.min(axis=0), used.max(axis=0)
    center = low + 0.5 * (high - low)
    size = float(np.abs(used - center).max())
    radius = size * float(np.linalg.norm((used - center) / size, axis=1).max()) if size > 0 else 0.0
    if not SMALLEST_RADIUS < radius < LARGEST_RADIUS:
        problem = (
            "all of the mesh's vertices are at one place" if radius == 0 else f"the mesh has a radius of {radius:.3g}"
        )
        raise ConfigError(
            f"{problem}; allowed are radii of {number_text(SMALLEST_RADIUS)} to {number_text(LARGEST_RADIUS)}; "
            "scale it or choose another"
        )
    farthest = float(np.abs(center).max())
    if radius < FINEST_SHARE * farthest:
        raise ConfigError(
            f"the mesh of radius {radius:.3g} lies {farthest:.3g} from its origin, where its digits are lost; "
            "allowed is a billion times its radius; move it to the origin"
        )
    return center, radius
