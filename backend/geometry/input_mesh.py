# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh that is refined: checked, welded where its vertices coincide, and scaled to the scene's unit size and back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .build import Mesh
from .color import display_to_linear, linear_to_display
from .mesh_validation import validate_mesh
from .topology import FloatArray, IntArray, Surface, vertex_normals

RADIUS = 0.5  # scene units, of the farthest vertex


@dataclass(frozen=True)
class InputMesh:
    """A mesh as it was given and as it is optimized.

    vertices (V, 3) float32, faces (F, 3) int32, albedo (V, 3) float32 linear, as given; unit (W, 3) float64 scene units,
    of the W distinct places; weld (V,) the place of each vertex; scale: scene units a unit of the given.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    albedo: NDArray[np.float32]
    unit: FloatArray
    weld: IntArray
    scale: float

    @property
    def welded_faces(self) -> IntArray:
        """(F, 3) places of the faces' corners: what hangs together although its vertices were split at a seam."""
        return self.weld[self.faces]

    @property
    def display(self) -> FloatArray:
        """(V, 3) colors in display sRGB."""
        return linear_to_display(self.albedo.astype(np.float64))

    def digest(self) -> str:
        """SHA-256 of the mesh as it was given."""
        digest = hashlib.sha256()
        for array in (self.vertices, self.faces, self.albedo):
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def changed(self, moves: FloatArray, tints: FloatArray) -> Mesh:
        """The mesh with moves (W, 3) in scene units and display-sRGB changes (V, 3): same faces, same vertex order.

        What did not change is bitwise what was given.
        """
        placed = (self.vertices.astype(np.float64) + moves[self.weld] / self.scale).astype(np.float32)
        tinted = display_to_linear(np.clip(self.display + tints, 0.0, 1.0)).astype(np.float32)
        albedo = np.where((tints != 0).any(axis=1, keepdims=True), tinted, self.albedo)
        around = vertex_normals(Surface(self.unit + moves, self.welded_faces))[self.weld]
        return Mesh(placed, self.faces, albedo, around.astype(np.float32))


def make_input_mesh(vertices: FloatArray, faces: IntArray, albedo: FloatArray) -> InputMesh:
    """A subject of vertices (V, 3), faces (F, 3) and linear albedo (V, 3). Raises ConfigError for what is no mesh."""
    vertices, albedo = np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(albedo, np.float32)
    faces = np.ascontiguousarray(faces)
    center, radius = validate_mesh(vertices, faces, albedo)
    places, weld = np.unique(vertices, axis=0, return_inverse=True)
    weld = weld.reshape(-1)
    scale = RADIUS / radius
    return InputMesh(
        vertices,
        faces.astype(np.int32),
        np.clip(albedo, 0, 1),
        scale * (places.astype(np.float64) - center),
        weld,
        scale,
    )
