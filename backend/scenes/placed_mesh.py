# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh in meters of an optimized surface in scene units, with its report."""

from __future__ import annotations

from typing import Any

import torch

from ..geometry.build import Mesh, MeshReport, assemble_mesh
from ..geometry.topology import FloatArray, Surface
from .mesh_scene import MeshScene


@torch.no_grad()
def current_surface(scene: MeshScene) -> Surface:
    """The scene's surface as it is, in scene units."""
    vertices = (scene.rest + scene.displacements()).cpu().double().numpy()
    return Surface(vertices, scene.input_mesh.faces.astype("int64"))


def current_colors(scene: MeshScene) -> FloatArray:
    """The scene's colors of vertices (V, 3) as they are, display sRGB."""
    with torch.no_grad():
        return (scene.colors + scene.color_changes()).clamp(0, 1).cpu().double().numpy()


@torch.no_grad()
def placed_mesh(scene: MeshScene, surface: Surface, **measured: Any) -> tuple[Mesh, MeshReport]:
    """`surface` with the scene's colors, mesh.height_m high and standing on its base; `measured`: of the report."""
    mesh, scale, offset = assemble_mesh(surface, current_colors(scene), scene.config.mesh.height_m)
    report = MeshReport.of(
        surface,
        mesh,
        scale,
        offset,
        threshold=0.0,
        cell=0.0,
        components_dropped=0,
        triangles_extracted=len(mesh.faces),
        error=None,
        **measured,
    )
    return mesh, report
