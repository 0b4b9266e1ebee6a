# SPDX-License-Identifier: GPL-3.0-or-later
"""Albedo anywhere on a mesh: its textures where it has some, else its vertices' colors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry.topology import FloatArray, IntArray
from ..io.mesh_data import FaceTexture


@dataclass(frozen=True)
class SurfacePaint:
    """faces (F, 3), albedo (V, 3) linear RGB of their vertices, textures of some of the faces."""

    faces: IntArray
    albedo: FloatArray
    textures: tuple[FaceTexture, ...] = ()

    def linear_at(self, face: IntArray, barycentric: FloatArray) -> FloatArray:
        """Linear RGB (m, 3) at places given by face (m,) and barycentric coordinates (m, 3)."""
        found = np.einsum("mc,mck->mk", barycentric, self.albedo[self.faces[face]])
        for texture in self.textures:
            rows = np.flatnonzero((face >= texture.first) & (face < texture.first + len(texture.uv)))
            if len(rows):
                own, weights = face[rows] - texture.first, barycentric[rows]
                uv = np.einsum("mc,mck->mk", weights, texture.uv[own])
                tint = np.einsum("mc,mck->mk", weights, texture.tint[own])
                found[rows] = np.clip(tint * texture.image.linear_at(uv), 0.0, 1.0)
        return found
