# SPDX-License-Identifier: GPL-3.0-or-later
"""A mesh from a .glb, .gltf, .ply or .obj file, Z up, with linear vertex colors."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import ConfigError, one_line
from ..geometry.build import Mesh
from ..geometry.input_mesh import InputMesh, make_input_mesh
from ..geometry.topology import FloatArray
from .gltf_reader import read_gltf
from .mesh_data import MeshData, UnreadableMeshError
from .obj_reader import read_obj
from .ply_reader import read_ply

READERS: dict[str, Callable[[Path], MeshData]] = {
    ".glb": read_gltf,
    ".gltf": read_gltf,
    ".ply": read_ply,
    ".obj": read_obj,
}
SUFFIXES = tuple(READERS)
Y_UP = (".glb", ".gltf")
LARGEST_BYTES = 256 << 20  # of a file; one of the largest allowed mesh takes some 40 MB as text

Up = Literal["auto", "y", "z"]


def read_input_mesh(path: str | os.PathLike[str], up: Up = "auto") -> InputMesh:
    """All triangles of a file as one mesh in Z up, vertices and faces in the file's order, each vertex once.

    glTF is Y up; PLY and OBJ count as Z up, as Dreamwright writes them. glTF's vertex colors are linear, those of the
    others display sRGB; textures are looked up at the vertices, and a vertex whose corners differ in color has their
    mean. Raises ConfigError for a file that is missing, of another kind, damaged, or that cannot be read truly.
    """
    data = _read(Path(path), up)
    return make_input_mesh(data.vertices, data.faces, data.albedo, data.notices)


def read_mesh(path: str | os.PathLike[str]) -> Mesh:
    """The mesh of a file in Z up with its own normals, or smooth ones. Raises ConfigError as `read_input_mesh` does."""
    data = _read(Path(path), "auto")
    mesh = make_input_mesh(data.vertices, data.faces, data.albedo)
    plain = mesh.changed(np.zeros_like(mesh.unit), np.zeros_like(mesh.display))
    return plain if data.normals is None else replace(plain, normals=data.normals.astype(np.float32))


def read_mesh_data(path: str | os.PathLike[str], up: Up = "auto") -> MeshData:
    """The file's mesh in Z up, unchecked, with its own normals. Raises ConfigError as `read_input_mesh` does."""
    return _read(Path(path), up)


def _read(path: Path, up: Up) -> MeshData:
    """The file's mesh in Z up. Raises ConfigError."""
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise ConfigError(f"cannot read {str(path)!r} as a mesh; allowed are {', '.join(READERS)}; convert it first")
    try:
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            raise ConfigError(
                f"{str(path)!r} has {size >> 20} MB; allowed are {LARGEST_BYTES >> 20}; decimate the mesh first"
            )
        data = READERS[suffix](path)
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror or error}; give the file of a mesh") from error
    except (
        UnreadableMeshError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        OverflowError,
        MemoryError,
    ) as error:
        reason = str(error) if isinstance(error, UnreadableMeshError) else f"it is damaged: {one_line(error)}"
        raise ConfigError(
            f"cannot read {str(path)!r} as a mesh ({reason}); repair it or export it again, as .glb for example"
        ) from error
    if up == "y" or (up == "auto" and suffix in Y_UP):
        normals = None if data.normals is None else _y_up_to_z_up(data.normals)
        return replace(data, vertices=_y_up_to_z_up(data.vertices), normals=normals)
    return data


def _y_up_to_z_up(vectors: FloatArray) -> FloatArray:
    """The inverse of `gltf_writer.to_y_up`, exactly."""
    return np.stack([vectors[:, 0], -vectors[:, 2], vectors[:, 1]], axis=1)
