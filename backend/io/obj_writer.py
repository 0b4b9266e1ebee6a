# SPDX-License-Identifier: GPL-3.0-or-later
"""A Wavefront OBJ writer: vertex colors in the .obj itself, or a texture with its .mtl and .png beside it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..geometry.build import Mesh
from ..geometry.color import linear_to_display
from ..geometry.topology import FloatArray
from .gltf_writer import ROUGHNESS
from .provenance import MADE_BY, object_name, provenance_lines

OWNER_KEY = "Source"  # of the PNG text entry that names the .obj


def obj_bytes(mesh: Mesh, provenance: Mapping[str, Any]) -> bytes:
    """Text OBJ: "v x y z r g b" (display sRGB in [0, 1]), "vn", "f a//a b//b c//c", Z up, meters; no texture."""
    lines = [f"# {line}" for line in [MADE_BY, *provenance_lines(provenance)]]
    lines.append(f"o {json.dumps(object_name(provenance))[1:-1]}")
    colors = linear_to_display(mesh.albedo.astype(np.float64))
    for point, color in zip(_exact(mesh.vertices), colors.tolist(), strict=True):
        lines.append(f"v {point} " + " ".join(f"{c:.5f}" for c in color))
    lines += _normal_lines(mesh)
    lines += [f"f {a}//{a} {b}//{b} {c}//{c}" for a, b, c in (mesh.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode("ascii")


def sidecar_names(name: str) -> tuple[str, str]:
    """Names of the .mtl and the .png of a textured `name` (with its extension); no two names share any.

    Whitespace, "#", "%" and control characters, which readers cut or skip in a line of text, are percent-encoded. An
    extension other than .obj, such as .OBJ, stays in the names.
    """
    stem = name[: -len(".obj")] if name.endswith(".obj") else name
    quoted = re.sub(r"[\s#%\x00-\x1f\x7f]", lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), stem)
    return f"{quoted}.mtl", f"{quoted}_albedo.png"


def textured_obj(mesh: Mesh, provenance: Mapping[str, Any], name: str) -> dict[str, bytes]:
    """Contents of the files of a textured OBJ by name: its .png, its .mtl, and the .obj `name` last.

    The .obj has "v", "vt" (v from the bottom), "vn" and "f a/t/a". The other files name the .obj, see `is_sidecar_of`.
    """
    if mesh.texture is None:
        raise ValueError("the mesh has no texture")
    places = mesh.texture.unwrapping
    library, image = sidecar_names(name)
    lines = [f"# {line}" for line in [MADE_BY, *provenance_lines(provenance)]]
    lines += [f"mtllib {library}", f"o {json.dumps(object_name(provenance))[1:-1]}", "usemtl albedo"]
    lines += [f"v {point}" for point in _exact(mesh.vertices)]
    lines += [f"vt {u:.9g} {1.0 - v:.9g}" for u, v in places.uv.astype(np.float64).tolist()]
    lines += _normal_lines(mesh)
    for corners, texels in zip((mesh.faces + 1).tolist(), (places.corners + 1).tolist(), strict=True):
        lines.append("f " + " ".join(f"{a}/{t}/{a}" for a, t in zip(corners, texels, strict=True)))
    material = [f"# {_owner(name)}", "newmtl albedo", "Ka 1 1 1", "Kd 1 1 1", "Ks 0 0 0", "illum 1"]
    material += [f"Pr {ROUGHNESS}", "Pm 0", f"map_Kd {image}"]
    return {
        image: _with_owner(mesh.texture.png(), name),
        library: ("\n".join(material) + "\n").encode("utf-8"),
        name: ("\n".join(lines) + "\n").encode("utf-8"),
    }


def is_sidecar_of(path: Path, name: str) -> bool:
    """Whether an existing .mtl or .png was written for the .obj `name`. Raises OSError."""
    if path.suffix == ".mtl":
        with open(path, "rb") as stream:
            return stream.readline().rstrip() == f"# {_owner(name)}".encode()
    try:
        with Image.open(path) as image:
            return image.info.get(OWNER_KEY) == _owner(name)
    except Exception as error:  # Pillow raises whatever its decoders raise for what is no image
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return False


def _owner(name: str) -> str:
    return f"{MADE_BY} for {json.dumps(name)}"


def _with_owner(png: bytes, name: str) -> bytes:
    text = PngInfo()
    text.add_text(OWNER_KEY, _owner(name))
    stream = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.save(stream, format="PNG", pnginfo=text)
    return stream.getvalue()


def _exact(vertices: FloatArray) -> list[str]:
    """ "x y z" of each vertex: the shortest decimals that read back as the same numbers of the array's type."""
    flat = np.ascontiguousarray(vertices).reshape(-1)
    words = [repr(value) for value in flat.tolist()] if flat.dtype == np.float64 else [str(value) for value in flat]
    return [" ".join(words[start : start + 3]) for start in range(0, len(words), 3)]


def _normal_lines(mesh: Mesh) -> list[str]:
    return ["vn " + " ".join(f"{value:.5f}" for value in normal) for normal in mesh.normals.tolist()]
