# SPDX-License-Identifier: GPL-3.0-or-later
"""What finishing works on and what it makes: the dense mesh, levels of detail, hulls, and the asset of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.topology import FloatArray, IntArray, Surface
from ..geometry.unwrap import Unwrapping
from .paint import SurfacePaint


@dataclass(frozen=True)
class DenseMesh:
    """The given mesh, Z up: surface as its file has it, welded without faces that have no area, normals (F, 3, 3) unit
    of the surface's corners, and paint: its albedo.
    """

    surface: Surface
    welded: Surface
    normals: FloatArray
    paint: SurfacePaint

    def placed(self, scale: float, offset: FloatArray) -> DenseMesh:
        """The mesh with vertices scale * v + offset (3,)."""
        surface, welded = (Surface(scale * one.vertices + offset, one.faces) for one in (self.surface, self.welded))
        return DenseMesh(surface, welded, self.normals, self.paint)


@dataclass(frozen=True)
class Maps:
    """Square images with row 0 at the top: albedo (s, s, 3) uint8 display sRGB, normal (s, s, 3) uint8 or None.

    normal: (0.5 n + 0.5) * 255 of the unit normal n in the tangent frame, x along u, y up in the image (glTF 2.0).
    """

    albedo: NDArray[np.uint8]
    normal: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Level:
    """One level of detail: surface and smooth unit normals (V, 3) outwards; albedo (V, 3) linear of its vertices.

    unwrapping, tangents (U, 4) of its rows and maps are None where the steps that make them were left out. figures:
    what was measured. screen_size: share of the screen's height, by the diameter of the bounding sphere, below which
    the level may be shown.
    """

    surface: Surface
    normals: FloatArray
    albedo: FloatArray
    unwrapping: Unwrapping | None = None
    tangents: FloatArray | None = None
    maps: Maps | None = None
    screen_size: float = 1.0
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Hull:
    """A convex hull: vertices (V, 3) meters, faces (F, 3) counter-clockwise from outside."""

    vertices: FloatArray
    faces: IntArray


@dataclass(frozen=True)
class Asset:
    """A finished prop: levels from fine to coarse, collision hulls, constants of the material, figures by step."""

    name: str
    levels: tuple[Level, ...]
    hulls: tuple[Hull, ...]
    roughness: float
    metallic: float
    figures: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...] = ()

    def level_name(self, number: int) -> str:
        """NAME_LOD0 and so on: what Unity and Unreal Engine recognize."""
        return f"{self.name}_LOD{number}"

    def hull_name(self, number: int) -> str:
        """UCX_NAME_LOD0_00 and so on: Unreal Engine's name of a convex hull of that mesh."""
        return f"UCX_{self.level_name(0)}_{number:02d}"
