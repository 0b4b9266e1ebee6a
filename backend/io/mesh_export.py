# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing a mesh to .glb, .ply or .obj: checked before the run, atomic, with its provenance inside.

GLB carries linear colors (COLOR_0), as glTF wants. PLY and OBJ carry display sRGB, as is customary: PLY in uchar
red, green, blue; OBJ as "v x y z r g b" in [0, 1]. PLY and OBJ keep Z up. A texture is display sRGB everywhere: inside the
GLB, beside the OBJ (which then has a .mtl and a .png and no colors of vertices); PLY has none.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ExportError
from ..geometry.build import Mesh
from ..geometry.color import linear_to_display
from .gltf import ROUGHNESS, glb_bytes
from .output_files import check_writable, write_atomically

NAME_LENGTH = 60  # characters; Blender's object names hold 63 bytes


def provenance_lines(provenance: Mapping[str, Any]) -> list[str]:
    """One "key: JSON value" line of plain ASCII per entry, for formats whose only metadata are comments."""
    return [f"{json.dumps(str(key))[1:-1]}: {json.dumps(value, allow_nan=False)}" for key, value in provenance.items()]


def object_name(provenance: Mapping[str, Any]) -> str:
    """Name of the object in other programs: the prompt, cut to a length that they take, or "prop"."""
    words = " ".join(str(provenance.get("prompt", "")).split())
    return words.encode("utf-8")[:NAME_LENGTH].decode("utf-8", errors="ignore").strip() or "prop"


def ply_bytes(mesh: Mesh, provenance: Mapping[str, Any]) -> bytes:
    """Binary little-endian PLY: float x y z nx ny nz, uchar red green blue (display sRGB), Z up, metres."""
    names = ["x", "y", "z", "nx", "ny", "nz"]
    vertex = np.zeros(
        len(mesh.vertices),
        dtype=[(name, "<f4") for name in names] + [(name, "u1") for name in ("red", "green", "blue")],
    )
    for axis in range(3):
        vertex[names[axis]] = mesh.vertices[:, axis]
        vertex[names[3 + axis]] = mesh.normals[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        vertex[name] = np.rint(linear_to_display(mesh.albedo[:, channel]) * 255.0).astype(np.uint8)
    face = np.zeros(len(mesh.faces), dtype=[("count", "u1"), ("index", "<i4", (3,))])
    face["count"] = 3
    face["index"] = mesh.faces
    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"comment {line}" for line in ["made by Dreamwright", *provenance_lines(provenance)]]
    header += [f"element vertex {len(vertex)}"] + [f"property float {name}" for name in names]
    header += [f"property uchar {name}" for name in ("red", "green", "blue")]
    header += [f"element face {len(face)}", "property list uchar int vertex_indices", "end_header"]
    return "\n".join(header).encode("ascii") + b"\n" + vertex.tobytes() + face.tobytes()


def obj_bytes(mesh: Mesh, provenance: Mapping[str, Any]) -> bytes:
    """Text OBJ: "v x y z r g b" (display sRGB in [0, 1]), "vn", "f a//a b//b c//c", Z up, metres. Leaves a texture out."""
    lines = [f"# {line}" for line in ["made by Dreamwright", *provenance_lines(provenance)]]
    lines.append(f"o {json.dumps(object_name(provenance))[1:-1]}")
    colors = linear_to_display(mesh.albedo.astype(np.float64))
    for point, color in zip(mesh.vertices.tolist(), colors.tolist(), strict=True):
        lines.append("v " + " ".join(f"{value:.7g}" for value in point) + " " + " ".join(f"{c:.5f}" for c in color))
    lines += ["vn " + " ".join(f"{value:.5f}" for value in normal) for normal in mesh.normals.tolist()]
    lines += [f"f {a}//{a} {b}//{b} {c}//{c}" for a, b, c in (mesh.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode("ascii")


def textured_obj(mesh: Mesh, provenance: Mapping[str, Any], stem: str) -> dict[str, bytes]:
    """Files of a textured OBJ by name, the .obj last: "v", "vt" (v from the bottom), "vn", "f a/t/a", its .mtl and .png.

    The picture is STEM_albedo.png, so that no picture of the same name as the mesh is in its way. Whitespace in `stem`
    becomes _ in the names of the other files, which many readers would cut there.
    """
    if mesh.texture is None:
        raise ValueError("the mesh has no texture")
    places, plain = mesh.texture.unwrapping, re.sub(r"\s", "_", stem)
    library, picture = f"{plain}.mtl", f"{plain}_albedo.png"
    lines = [f"# {line}" for line in ["made by Dreamwright", *provenance_lines(provenance)]]
    lines += [f"mtllib {library}", f"o {json.dumps(object_name(provenance))[1:-1]}", "usemtl albedo"]
    lines += ["v " + " ".join(f"{value:.7g}" for value in point) for point in mesh.vertices.tolist()]
    lines += [f"vt {u:.7g} {1.0 - v:.7g}" for u, v in places.uv.astype(np.float64).tolist()]
    lines += ["vn " + " ".join(f"{value:.5f}" for value in normal) for normal in mesh.normals.tolist()]
    for corners, texels in zip((mesh.faces + 1).tolist(), (places.corners + 1).tolist(), strict=True):
        lines.append("f " + " ".join(f"{a}/{t}/{a}" for a, t in zip(corners, texels, strict=True)))
    material = [
        "newmtl albedo",
        "Ka 1 1 1",
        "Kd 1 1 1",
        "Ks 0 0 0",
        "illum 1",
        f"Pr {ROUGHNESS}",
        "Pm 0",
        f"map_Kd {picture}",
    ]
    return {
        picture: mesh.texture.png(),
        library: ("\n".join(material) + "\n").encode("utf-8"),
        f"{stem}.obj": ("\n".join(lines) + "\n").encode("utf-8"),
    }


WRITERS: dict[str, Callable[[Mesh, Mapping[str, Any]], bytes]] = {
    ".glb": lambda mesh, provenance: glb_bytes(mesh, provenance, object_name(provenance)),
    ".ply": ply_bytes,
    ".obj": obj_bytes,
}
TEXTURED = (".glb", ".obj")  # what can hold a picture


def check_output_path(path: str | os.PathLike[str], textured: bool = False) -> Path:
    """The path, if a mesh can be written there; touches nothing that exists. Call it before a long run.

    Raises ExportError for an unsupported extension, one that cannot hold the texture of a `textured` mesh, an existing directory, a missing or an unwritable folder.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITERS:
        raise ExportError(
            f"cannot write {str(path)!r}: its extension is {path.suffix or 'missing'!r}; "
            f"allowed are {', '.join(WRITERS)}; end the file's name with one of them"
        )
    if textured and path.suffix.lower() not in TEXTURED:
        raise ExportError(
            f"cannot write {str(path)!r}: {path.suffix} files hold colors of vertices and no texture; allowed with --texture "
            f"(mesh.texture) are {' and '.join(TEXTURED)}; end the file's name with one of them, or leave the texture out"
        )
    return check_writable(path)


def export_mesh(mesh: Mesh, path: str | os.PathLike[str], provenance: Mapping[str, Any]) -> Path:
    """Write the mesh to .glb, .ply or .obj by the path's extension, with prompt, seed, preset and so on inside.

    A textured OBJ's other files go beside it (`textured_obj`), each replaced as a whole, the .obj last. `provenance` holds JSON values. Returns the path. Raises ExportError (see `check_output_path`), also for provenance
    that JSON cannot hold; then nothing has been written.
    """
    path = check_output_path(path, mesh.texture is not None)
    try:
        if mesh.texture is not None and path.suffix.lower() == ".obj":
            files = textured_obj(mesh, provenance, path.stem)
            files[path.name] = files.pop(f"{path.stem}.obj")  # .OBJ stays .OBJ
        else:
            files = {path.name: WRITERS[path.suffix.lower()](mesh, provenance)}
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"cannot write {str(path)!r}: its provenance is no JSON ({error}); "
            "allowed are strings, finite numbers, lists and mappings of them"
        ) from error
    for name, data in files.items():
        write_atomically(path.with_name(name), data)
    return path
