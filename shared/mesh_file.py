# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh as a file on its way to Blender: msgpack of arrays and of where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np

from . import limits
from .arrays import decode_array, encode_array
from .faults import ProtocolError
from .shapes import from_map, scalars, to_map

FORMAT = "dreamwright-mesh-1"


@dataclass(frozen=True)
class Provenance:
    """What made a mesh: prompt, model, preset, seed, steps, versions."""

    facts: dict[str, Any] = scalars(100)


@dataclass(frozen=True)
class MeshFile:
    """A triangle mesh in metres, Z up, front towards -Y, base on z = 0."""

    vertices: np.ndarray  # (V, 3) float32
    faces: np.ndarray  # (F, 3) int32, counter-clockwise from outside
    normals: np.ndarray  # (V, 3) float32, unit
    albedo: np.ndarray  # (V, 3) float32, linear, 0 to 1
    facts: dict[str, Any] = field(default_factory=dict)


def encode_mesh(mesh: MeshFile) -> bytes:
    """Bytes of a mesh."""
    return msgpack.packb(
        {
            "format": FORMAT,
            "vertices": encode_array(mesh.vertices.astype("<f4", copy=False)),
            "faces": encode_array(mesh.faces.astype("<i4", copy=False)),
            "normals": encode_array(mesh.normals.astype("<f4", copy=False)),
            "albedo": encode_array(mesh.albedo.astype("<f4", copy=False)),
            "facts": to_map(Provenance(mesh.facts))["facts"],
        },
        use_bin_type=True,
    )


def decode_mesh(data: bytes) -> MeshFile:
    """The mesh of `encode_mesh`, every index and number checked. Raises ProtocolError."""
    try:
        content = msgpack.unpackb(data, raw=False, strict_map_key=True, max_array_len=64, max_map_len=256, max_ext_len=0)
    except Exception as error:  # see messages.unpack
        raise ProtocolError(f"no mesh file: {type(error).__name__}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ProtocolError(f"no mesh file of format {FORMAT}")
    if set(content) != {"format", "vertices", "faces", "normals", "albedo", "facts"}:
        raise ProtocolError("a mesh file is a map of vertices, faces, normals, albedo and facts")
    arrays: dict[str, np.ndarray] = {}
    room = limits.FILE_BYTES  # for all of them together: packed ones may be a thousand times as large as the file
    for name in ("vertices", "faces", "normals", "albedo"):
        arrays[name] = decode_array(content[name], room)
        room -= arrays[name].nbytes
    count = len(arrays["vertices"]) if arrays["vertices"].ndim else 0
    for name, array in arrays.items():
        wanted = "<i4" if name == "faces" else "<f4"
        if array.ndim != 2 or array.shape[1] != 3 or array.dtype.str != wanted:
            raise ProtocolError(f"{name} of shape {array.shape} and dtype {array.dtype}; allowed is (n, 3) of {wanted}")
        if name in ("normals", "albedo") and len(array) != count:
            raise ProtocolError(f"{len(array)} {name} for {count} vertices; there must be one each")
        if name != "faces" and not np.isfinite(array).all():
            raise ProtocolError(f"{name} holds numbers that are not finite")
    faces = arrays["faces"]
    if len(faces) and (faces.min() < 0 or faces.max() >= count):
        raise ProtocolError(f"a face names vertex {int(faces.max())} of {count}")
    facts = from_map(Provenance, {"facts": content["facts"]}).facts
    return MeshFile(arrays["vertices"], faces, arrays["normals"], arrays["albedo"], facts)
