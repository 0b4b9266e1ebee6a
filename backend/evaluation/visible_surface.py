# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of a surface that can be seen from outside: fields are often hollow, and no eye sees their inner walls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from trimesh.creation import icosphere

from ..geometry.topology import Surface, face_areas
from ..mesh_rendering.rasterize import orbit_axes, rasterize
from .silhouettes import DISTANCE, FOCAL, Solid

RESOLUTION = 256  # pixels a side: some 10 for each triangle of a draft that faces the camera
DIRECTIONS = np.asarray(icosphere(subdivisions=1).vertices)  # 42, 32 to 36 degrees apart


@dataclass(frozen=True)
class VisibleSurface:
    """The faces that a camera outside sees, on all of the mesh's vertices, and the share of the area that none sees."""

    seen: Solid
    hidden_share: float


def visible_surface(solid: Solid) -> VisibleSurface:
    """Of a mesh within radius 0.5 or so: what 42 views all around it show, from above and below as well."""
    is_seen = np.zeros(len(solid.faces) + 1, bool)  # the last one is the background's, face -1
    for x, y, z in DIRECTIONS:
        axes = orbit_axes(float(np.degrees(np.arctan2(x, -y))), float(np.degrees(np.arcsin(np.clip(z, -1.0, 1.0)))))
        view = rasterize(solid.vertices, solid.faces, DISTANCE * axes[:, 2], axes, FOCAL, RESOLUTION)
        is_seen[np.unique(view.face)] = True
    is_seen = is_seen[:-1]
    areas = face_areas(Surface(solid.vertices, solid.faces))
    return VisibleSurface(
        Solid(solid.vertices, solid.faces[is_seen]), float(areas[~is_seen].sum() / max(areas.sum(), 1e-12))
    )
