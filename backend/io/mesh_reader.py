# SPDX-License-Identifier: GPL-3.0-or-later
"""A mesh from a .glb, .ply or .obj file, Z up, with linear vertex colors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import trimesh

from ..errors import ConfigError, one_line
from ..geometry.color import display_to_linear
from ..geometry.input_mesh import InputMesh, make_input_mesh
from ..geometry.topology import FloatArray

SUFFIXES = (".glb", ".gltf", ".ply", ".obj")
LARGEST_BYTES = 256 << 20  # of a file; one of the largest allowed mesh takes some 40 MB as text
PLAIN = 0.5  # display sRGB of vertices that have no color

Up = Literal["auto", "y", "z"]


def read_input_mesh(path: str | os.PathLike[str], up: Up = "auto") -> InputMesh:
    """All meshes of a file as one, in Z up. glTF is Y up; PLY and OBJ count as Z up, as Dreamwright writes them.

    glTF's vertex colors are linear, those of the others display sRGB; a picture texture is looked up at the vertices.
    Raises ConfigError for a file that is missing, of another kind, or holds no triangles.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"cannot read {str(path)!r} as a mesh; allowed are {', '.join(SUFFIXES)}; convert it first")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror}; give the file of a mesh") from error
    if size > LARGEST_BYTES:
        raise ConfigError(
            f"{str(path)!r} has {size >> 20} MB; allowed are {LARGEST_BYTES >> 20}; decimate the mesh first"
        )
    try:
        # Processing would merge and sort vertices; the result must fit the file's own.
        scene = trimesh.load_scene(path, process=False, maintain_order=True)
        order = {name: number for number, name in enumerate(scene.geometry)}
        placed = [scene.graph[node] for node in sorted(scene.graph.nodes_geometry)]
        placed.sort(key=lambda item: order[item[1]])  # the file's order, whatever the graph's
        meshes = [
            (scene.geometry[name], turn) for turn, name in placed if isinstance(scene.geometry[name], trimesh.Trimesh)
        ]
        meshes = [(mesh, turn) for mesh, turn in meshes if len(mesh.faces)]
    except Exception as error:  # trimesh's readers raise whatever a damaged file makes them
        raise ConfigError(
            f"cannot read {str(path)!r} as a mesh ({one_line(error)}); export it again, as .glb for example"
        ) from error
    if not meshes:
        raise ConfigError(f"{str(path)!r} holds no triangles; needed is a mesh; export one, as .glb for example")
    gltf = path.suffix.lower() in (".glb", ".gltf")
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh, _ in meshes)])
    vertices = np.concatenate([_placed(np.asarray(mesh.vertices), turn) for mesh, turn in meshes])
    faces = np.concatenate(
        [np.asarray(mesh.faces) + start for (mesh, _), start in zip(meshes, starts[:-1], strict=True)]
    )
    albedo = np.concatenate([_linear_colors(mesh, gltf) for mesh, _ in meshes])
    if up == "y" or (up == "auto" and gltf):
        vertices = np.stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]], axis=1)
    return make_input_mesh(vertices, faces, albedo)


def _placed(vertices: FloatArray, transform: FloatArray) -> FloatArray:
    """The vertices where their node puts them; untouched where it puts them nowhere else."""
    if np.array_equal(transform, np.eye(4)):
        return vertices
    return vertices @ transform[:3, :3].T + transform[:3, 3]


def _linear_colors(mesh: Any, gltf: bool) -> FloatArray:
    """(V, 3) linear colors of a mesh's vertices, plain grey where it has none."""
    count, visual = len(mesh.vertices), mesh.visual
    own = getattr(visual, "vertex_attributes", {}).get("color") if visual.kind == "texture" else None
    if own is not None and len(own) == count:  # glTF's COLOR_0 beside a material, in the numbers of the file
        given = np.asarray(own)
        scaled = given.astype(np.float64) / (np.iinfo(given.dtype).max if given.dtype.kind == "u" else 1.0)
        return np.clip(scaled[:, :3], 0, 1)
    if visual.kind == "texture" and visual.uv is not None and _has_texture(visual):
        return display_to_linear(np.asarray(visual.to_color().vertex_colors)[:, :3] / 255.0)
    if visual.kind == "vertex":
        colors = np.asarray(visual.vertex_colors)[:, :3] / 255.0
        return colors if gltf else display_to_linear(colors)
    return np.full((count, 3), float(display_to_linear(np.array(PLAIN))))


def _has_texture(visual: Any) -> bool:
    material = visual.material
    return getattr(material, "image", None) is not None or getattr(material, "baseColorTexture", None) is not None
