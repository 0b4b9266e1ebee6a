# SPDX-License-Identifier: GPL-3.0-or-later
"""The triangles that Blender shades of a mesh, for scripts inside Blender and for tests with bpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def shaded_triangles(mesh: Any) -> dict[Any, list[tuple[np.ndarray, float]]]:
    """Each triangle by its corners' places and UVs: their normals and tangents (6,), and the tangents' signs."""
    if hasattr(mesh, "calc_normals_split"):  # before 4.1
        mesh.calc_normals_split()
    mesh.calc_loop_triangles()
    mesh.calc_tangents(uvmap=mesh.uv_layers[0].name)
    found = {}
    for triangle in mesh.loop_triangles:
        corners = []
        for at in triangle.loops:
            loop = mesh.loops[at]
            place = (*mesh.vertices[loop.vertex_index].co, *mesh.uv_layers[0].data[at].uv)
            corners.append((place, np.array([*loop.normal, *loop.tangent]), loop.bitangent_sign))
        first = min(range(3), key=lambda one: corners[one][0])
        corners = corners[first:] + corners[:first]
        found[tuple(place for place, _, _ in corners)] = [(frame, sign) for _, frame, sign in corners]
    return found


def angle_deg(one: np.ndarray, other: np.ndarray) -> float:
    """The angle between unit vectors, exact at small ones."""
    return math.degrees(2 * math.asin(min(1.0, float(np.linalg.norm(one - other)) / 2)))
