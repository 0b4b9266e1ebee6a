# SPDX-License-Identifier: GPL-3.0-or-later
"""Albedo anywhere on a mesh, from its vertices' colors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry.topology import FloatArray, IntArray


@dataclass(frozen=True)
class SurfacePaint:
    """faces (F, 3), albedo (V, 3) linear RGB of their vertices."""

    faces: IntArray
    albedo: FloatArray

    def linear_at(self, face: IntArray, barycentric: FloatArray) -> FloatArray:
        """Linear RGB (m, 3) at places given by face (m,) and barycentric coordinates (m, 3)."""
        return np.einsum("mc,mck->mk", barycentric, self.albedo[self.faces[face]])
