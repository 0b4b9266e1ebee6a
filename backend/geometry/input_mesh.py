# SPDX-License-Identifier: GPL-3.0-or-later
"""The input mesh of a refinement: validated, welded where vertices coincide, and scaled to the scene and back."""

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

    vertices (V, 3) as given, float32 where that holds them exactly, else float64; faces (F, 3) int32; albedo (V, 3)
    float32 linear; unit (W, 3) float64 scene units, of the W distinct positions; weld (V,) the position of each vertex;
    scale: scene units a unit of the given; notices: what of the file could not be read.
    """

    vertices: FloatArray
    faces: NDArray[np.int32]
    albedo: NDArray[np.float32]
    unit: FloatArray
    weld: IntArray
    scale: float
    notices: tuple[str, ...] = ()

    @property
    def welded_faces(self) -> IntArray:
        """(F, 3) positions of the faces' corners: connected also where vertices were split at a seam."""
        return self.weld[self.faces]

    @property
    def display(self) -> FloatArray:
        """(V, 3) colors in display sRGB."""
        return linear_to_display(self.albedo.astype(np.float64))

    def digest(self) -> str:
        """SHA-256 of vertices, faces and albedo."""
        digest = hashlib.sha256()
        for array in (self.vertices, self.faces, self.albedo):
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def changed(self, moves: FloatArray, tints: FloatArray) -> Mesh:
        """The mesh with moves (W, 3) in scene units and display-sRGB changes (V, 3): same faces, same vertex order.

        Unchanged numbers are bitwise those that were given; vertices keep the type in which they were given.
        """
        placed = (self.vertices.astype(np.float64) + moves[self.weld] / self.scale).astype(self.vertices.dtype)
        tinted = display_to_linear(np.clip(self.display + tints, 0.0, 1.0)).astype(np.float32)
        albedo = np.where((tints != 0).any(axis=1, keepdims=True), tinted, self.albedo)
        around = vertex_normals(Surface(self.unit + moves, self.welded_faces))[self.weld]
        return Mesh(placed, self.faces, albedo, around.astype(np.float32))


def make_input_mesh(
    vertices: FloatArray, faces: IntArray, albedo: FloatArray, notices: tuple[str, ...] = ()
) -> InputMesh:
    """An input mesh of vertices (V, 3), faces (F, 3) and linear albedo (V, 3). Raises ConfigError if it is no mesh."""
    vertices, faces = np.ascontiguousarray(_narrowed(vertices)), np.ascontiguousarray(faces)
    albedo = np.ascontiguousarray(albedo, np.float32)
    center, radius = validate_mesh(vertices, faces, albedo)
    positions, weld = np.unique(vertices, axis=0, return_inverse=True)
    scale = RADIUS / radius
    unit = (positions.astype(np.float64) - center) * scale
    return InputMesh(vertices, faces.astype(np.int32), np.clip(albedo, 0, 1), unit, weld.reshape(-1), scale, notices)


def _narrowed(vertices: FloatArray) -> FloatArray:
    """float32 if that holds every number exactly, else float64."""
    wide = np.asarray(vertices, dtype=np.float64)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    return narrow if np.array_equal(narrow, wide, equal_nan=True) else wide
