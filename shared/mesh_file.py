# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh as a file on its way to Blender: msgpack of arrays and of where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np

from . import limits
from .arrays import decode_array, encode_array
from .errors import ProtocolError
from .png import check_square_png
from .schema import from_map, scalar_map, to_map

FORMAT = "dreamwright-mesh-1"
TEXTURED_FORMAT = "dreamwright-mesh-2"  # the same with a picture; a mesh without one is still written as the first


@dataclass(frozen=True)
class Provenance:
    """What made a mesh: prompt, model, preset, seed, steps, versions."""

    facts: dict[str, Any] = scalar_map(100)


@dataclass(frozen=True)
class Texture:
    """The albedo as a picture, and where each corner of the mesh's faces lies in it."""

    png: bytes  # square, 8-bit RGB, display sRGB, row 0 at the top
    uv: np.ndarray  # (U, 2) float32 in 0 to 1, u to the right, v down from the top left, as in glTF
    corners: np.ndarray  # (F, 3) int32, rows of uv


@dataclass(frozen=True)
class MeshFile:
    """A triangle mesh in metres, Z up, front towards -Y, base on z = 0."""

    vertices: np.ndarray  # (V, 3) float32
    faces: np.ndarray  # (F, 3) int32, counter-clockwise from outside
    normals: np.ndarray  # (V, 3) float32, unit
    albedo: np.ndarray  # (V, 3) float32, linear, 0 to 1
    facts: dict[str, Any] = field(default_factory=dict)
    picture: Texture | None = None


def encode_mesh(mesh: MeshFile) -> bytes:
    """Bytes of a mesh."""
    content = {
        "format": FORMAT,
        "vertices": encode_array(mesh.vertices.astype("<f4", copy=False)),
        "faces": encode_array(mesh.faces.astype("<i4", copy=False)),
        "normals": encode_array(mesh.normals.astype("<f4", copy=False)),
        "albedo": encode_array(mesh.albedo.astype("<f4", copy=False)),
        "facts": to_map(Provenance(mesh.facts))["facts"],
    }
    if mesh.picture is not None:
        content |= {
            "format": TEXTURED_FORMAT,
            "uv": encode_array(mesh.picture.uv.astype("<f4", copy=False)),
            "corners": encode_array(mesh.picture.corners.astype("<i4", copy=False)),
            "png": mesh.picture.png,
        }
    return msgpack.packb(content, use_bin_type=True)


def decode_mesh(data: bytes, room: int | None = None) -> MeshFile:
    """The mesh of `encode_mesh`, every index and number checked, of at most `room` bytes once unpacked (a file's). Raises ProtocolError."""
    try:
        content = msgpack.unpackb(
            data, raw=False, strict_map_key=True, max_array_len=64, max_map_len=256, max_ext_len=0
        )
    except Exception as error:  # see messages.unpack
        raise ProtocolError(f"no mesh file: {type(error).__name__}") from error
    if not isinstance(content, dict) or content.get("format") not in (FORMAT, TEXTURED_FORMAT):
        raise ProtocolError(
            f"no mesh file of format {FORMAT} or {TEXTURED_FORMAT}; update the older of add-on and server"
        )
    pictured = content["format"] == TEXTURED_FORMAT
    if set(content) != {
        "format",
        "vertices",
        "faces",
        "normals",
        "albedo",
        "facts",
        *(("uv", "corners", "png") if pictured else ()),
    }:
        raise ProtocolError(
            "a mesh file is a map of vertices, faces, normals, albedo, facts and, with a picture, uv, corners and png"
        )
    arrays: dict[str, np.ndarray] = {}
    room = (
        limits.FILE_BYTES if room is None else room
    )  # for all of them together: packed ones may be a thousand times as large as the file
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
    picture = _picture(content, len(faces), room) if pictured else None
    return MeshFile(arrays["vertices"], faces, arrays["normals"], arrays["albedo"], facts, picture)


def _picture(content: dict[str, Any], faces: int, room: int) -> Texture:
    uv = decode_array(content["uv"], room)
    corners = decode_array(content["corners"], room - uv.nbytes)
    if (
        uv.ndim != 2 or uv.shape[1] != 2 or uv.dtype.str != "<f4" or not ((uv >= 0) & (uv <= 1)).all()
    ):  # also refuses NaN
        raise ProtocolError(f"uv of shape {uv.shape} and dtype {uv.dtype}; allowed is (n, 2) of <f4 from 0 to 1")
    if corners.shape != (faces, 3) or corners.dtype.str != "<i4":
        raise ProtocolError(
            f"corners of shape {corners.shape} and dtype {corners.dtype}; allowed is {(faces, 3)} of <i4"
        )
    if len(corners) and (corners.min() < 0 or corners.max() >= len(uv)):
        raise ProtocolError(f"a corner names place {int(corners.max())} of {len(uv)}")
    if not isinstance(content["png"], bytes):
        raise ProtocolError("the picture is no PNG")
    check_square_png(content["png"], limits.TEXTURE_SMALLEST, limits.TEXTURE_LARGEST)
    return Texture(content["png"], uv, corners)
