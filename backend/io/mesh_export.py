# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing a mesh to .glb, .ply or .obj: checked before the run, atomic, with its provenance inside.

GLB carries linear colors (COLOR_0), as glTF wants. PLY and OBJ carry display sRGB, as is customary: PLY in uchar
red, green, blue; OBJ as "v x y z r g b" in [0, 1]. PLY and OBJ keep Z up. A texture is display sRGB everywhere: inside
the GLB, beside the OBJ (which then has a .mtl and a .png and no vertex colors); PLY has none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ExportError
from ..geometry.build import Mesh
from .gltf_writer import glb_bytes
from .obj_writer import is_sidecar_of, obj_bytes, sidecar_names, textured_obj
from .output_files import check_writable, write_output
from .ply_writer import ply_bytes
from .provenance import object_name

WRITERS: dict[str, Callable[[Mesh, Mapping[str, Any]], bytes]] = {
    ".glb": lambda mesh, provenance: glb_bytes(mesh, provenance, object_name(provenance)),
    ".ply": ply_bytes,
    ".obj": obj_bytes,
}
TEXTURED = (".glb", ".obj")  # formats that hold a texture


def check_output_path(path: str | os.PathLike[str], textured: bool = False) -> Path:
    """The path, if a mesh can be written there; touches nothing that exists. Call it before a long run.

    Raises ExportError for an unsupported extension, one that cannot hold the texture of a `textured` mesh, whatever
    `check_writable` refuses, and for a textured OBJ whose .mtl or .png would replace a file that is not its own.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise ExportError(
            f"cannot write {str(path)!r}: its extension is {path.suffix or 'missing'!r}; "
            f"allowed are {', '.join(WRITERS)}; end the file's name with one of them"
        )
    if textured and suffix not in TEXTURED:
        raise ExportError(
            f"cannot write {str(path)!r}: {path.suffix} files hold colors of vertices and no texture; allowed "
            f"with --texture (mesh.texture) are {' and '.join(TEXTURED)}; end the file's name with one of them, or "
            "set --texture 0 for vertex colors"
        )
    check_writable(path)
    if textured and suffix == ".obj":
        for name in sidecar_names(path.name):
            _check_sidecar(path, path.with_name(name))
    return path


def export_mesh(mesh: Mesh, path: str | os.PathLike[str], provenance: Mapping[str, Any]) -> Path:
    """Write the mesh to .glb, .ply or .obj by the path's extension, with prompt, seed, preset and so on inside.

    A textured OBJ's other files go beside it (`textured_obj`), each replaced as a whole, the .obj last. `provenance`
    holds JSON values. Returns the path. Raises ExportError (see `check_output_path`), also for provenance that JSON
    cannot hold; then nothing has been written.
    """
    path = check_output_path(path, mesh.texture is not None)
    for name, data in _contents(mesh, path, provenance).items():
        write_output(path.with_name(name), data)
    return path


def _contents(mesh: Mesh, path: Path, provenance: Mapping[str, Any]) -> dict[str, bytes]:
    """Contents of all files by name, the mesh's own last."""
    try:
        if mesh.texture is not None and path.suffix.lower() == ".obj":
            return textured_obj(mesh, provenance, path.name)
        return {path.name: WRITERS[path.suffix.lower()](mesh, provenance)}
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"cannot write {str(path)!r}: its provenance is no JSON ({error}); "
            "allowed are strings, finite numbers, lists and mappings of them"
        ) from error


def _check_sidecar(path: Path, sidecar: Path) -> None:
    check_writable(sidecar)
    try:
        is_foreign = os.path.lexists(sidecar) and not is_sidecar_of(sidecar, path.name)
    except OSError as error:
        raise ExportError(
            f"cannot write {str(path)!r}: its texture needs {str(sidecar)!r}, which cannot be read ({error.strerror}); "
            "give another name"
        ) from error
    if is_foreign:
        raise ExportError(
            f"cannot write {str(path)!r}: its texture would replace {str(sidecar)!r}, which belongs to another file; "
            "give another name, or move that file away"
        )
