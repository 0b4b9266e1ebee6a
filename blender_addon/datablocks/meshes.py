# SPDX-License-Identifier: GPL-3.0-or-later
"""Mesh datablocks with vertex colors and a UV map."""

from __future__ import annotations

from typing import Any, Protocol

import bpy
import numpy as np

ALBEDO = "albedo"
UV_MAP = "UVMap"


class TextureArrays(Protocol):
    """The part of `shared.mesh_file.Texture` that a mesh datablock holds."""

    @property
    def uv(self) -> np.ndarray:
        """(U, 2) float32 in 0 to 1, u to the right, v down from the top left, as in glTF."""

    @property
    def corners(self) -> np.ndarray:
        """(F, 3) int32, rows of uv."""


class MeshArrays(Protocol):
    """The part of `shared.mesh_file.MeshFile` that a mesh datablock holds."""

    @property
    def vertices(self) -> np.ndarray:
        """(V, 3) float32, meters."""

    @property
    def faces(self) -> np.ndarray:
        """(F, 3) int32, counter-clockwise from outside."""

    @property
    def albedo(self) -> np.ndarray:
        """(V, 3) float32, linear, 0 to 1."""

    @property
    def texture(self) -> TextureArrays | None:
        """UV coordinates of a texture, or None."""


def proper_faces(faces: np.ndarray) -> np.ndarray:
    """(F,) bool: faces with three different vertices. Blender's mesh arrays must not hold others."""
    return (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])


def build_mesh(name: str, mesh: MeshArrays) -> Any:
    """A Mesh datablock with smooth shading, linear vertex colors, and a UV map when the mesh has a texture."""
    kept = proper_faces(mesh.faces)
    faces = mesh.faces[kept]
    made = bpy.data.meshes.new(name)
    made.vertices.add(len(mesh.vertices))
    made.vertices.foreach_set("co", np.ascontiguousarray(mesh.vertices, np.float32).ravel())
    made.loops.add(faces.size)
    made.loops.foreach_set("vertex_index", np.ascontiguousarray(faces, np.int32).ravel())
    made.polygons.add(len(faces))
    made.polygons.foreach_set("loop_start", np.arange(0, faces.size, 3, dtype=np.int32))
    if bpy.app.version < (4, 0, 0):
        made.polygons.foreach_set("loop_total", np.full(len(faces), 3, np.int32))
    # The file's normals are vertex averages of face normals, which is what smooth shading computes. Custom normals
    # would become wrong on edits and cost as much as the rest of the import.
    made.polygons.foreach_set("use_smooth", np.ones(len(faces), bool))
    if mesh.texture is not None:
        uv = mesh.texture.uv[mesh.texture.corners[kept]].reshape(-1, 2).astype(np.float32)
        uv[:, 1] = 1 - uv[:, 1]  # Blender's v starts at the bottom
        made.uv_layers.new(name=UV_MAP).data.foreach_set("uv", uv.ravel())
    made.update(calc_edges=True)
    made.validate()
    attribute = made.color_attributes.new(ALBEDO, "FLOAT_COLOR", "POINT")
    set_vertex_colors(attribute, mesh.albedo)
    made.color_attributes.active_color = attribute
    made.color_attributes.render_color_index = made.color_attributes.active_color_index
    return made


def set_vertex_colors(attribute: Any, albedo: np.ndarray) -> None:
    """Write (V, 3) linear colors to a color attribute of the vertices, with alpha 1."""
    colors = np.ones((len(albedo), 4), np.float32)
    colors[:, :3] = albedo
    attribute.data.foreach_set("color", colors.ravel())
