# SPDX-License-Identifier: GPL-3.0-or-later
"""Mesh files for the wire: msgpack of arrays and provenance."""

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
TEXTURED_FORMAT = "dreamwright-mesh-2"  # with a texture; a mesh without one is written as FORMAT


@dataclass(frozen=True)
class Provenance:
    """How a mesh was made: prompt, model, preset, seed, steps, versions."""

    facts: dict[str, Any] = scalar_map(100)


@dataclass(frozen=True)
class Texture:
    """Albedo texture with UV coordinates per face corner."""

    png: bytes  # square, 8-bit RGB, display sRGB, row 0 at the top
    uv: np.ndarray  # (U, 2) float32 in 0 to 1, u to the right, v down from the top left, as in glTF
    corners: np.ndarray  # (F, 3) int32, rows of uv


@dataclass(frozen=True)
class MeshFile:
    """A triangle mesh in meters, Z up, front towards -Y, base on z = 0."""

    vertices: np.ndarray  # (V, 3) float32
    faces: np.ndarray  # (F, 3) int32, counter-clockwise from outside
    normals: np.ndarray  # (V, 3) float32, unit
    albedo: np.ndarray  # (V, 3) float32, linear, 0 to 1
    facts: dict[str, Any] = field(default_factory=dict)
    texture: Texture | None = None


def encode_mesh(mesh: MeshFile) -> bytes:
    """Encode a mesh. Raises ProtocolError."""
    content = {
        "format": FORMAT,
        "vertices": encode_array(mesh.vertices.astype("<f4", copy=False)),
        "faces": encode_array(mesh.faces.astype("<i4", copy=False)),
        "normals": encode_array(mesh.normals.astype("<f4", copy=False)),
        "albedo": encode_array(mesh.albedo.astype("<f4", copy=False)),
        "facts": to_map(Provenance(mesh.facts))["facts"],
    }
    if mesh.texture is not None:
        content |= {
            "format": TEXTURED_FORMAT,
            "uv": encode_array(mesh.texture.uv.astype("<f4", copy=False)),
            "corners": encode_array(mesh.texture.corners.astype("<i4", copy=False)),
            "png": mesh.texture.png,
        }
    return msgpack.packb(content, use_bin_type=True)


def decode_mesh(data: bytes, max_bytes: int | None = None) -> MeshFile:
    """Decode untrusted bytes of `encode_mesh`; every index and number is checked. Raises ProtocolError.

    The arrays may have at most `max_bytes` together when unpacked; None: FILE_BYTES.
    """
    try:
        content = msgpack.unpackb(
            data, raw=False, strict_map_key=True, max_array_len=64, max_map_len=256, max_ext_len=0
        )
    except Exception as error:  # msgpack raises many types; see codec.unpack
        raise ProtocolError(f"not a mesh file: {type(error).__name__}") from error
    if not isinstance(content, dict) or content.get("format") not in (FORMAT, TEXTURED_FORMAT):
        raise ProtocolError(
            f"not a mesh file of format {FORMAT} or {TEXTURED_FORMAT}; update the older of add-on and server"
        )
    is_textured = content["format"] == TEXTURED_FORMAT
    if set(content) != {
        "format",
        "vertices",
        "faces",
        "normals",
        "albedo",
        "facts",
        *(("uv", "corners", "png") if is_textured else ()),
    }:
        raise ProtocolError(
            "a mesh file is a map of vertices, faces, normals, albedo, facts and, with a texture, uv, corners and png"
        )
    arrays: dict[str, np.ndarray] = {}
    # Of all arrays together: zlib may expand a small file a thousandfold.
    room = limits.FILE_BYTES if max_bytes is None else max_bytes
    for name in ("vertices", "faces", "normals", "albedo"):
        arrays[name] = decode_array(content[name], room)
        room -= arrays[name].nbytes
    count = len(arrays["vertices"]) if arrays["vertices"].ndim else 0
    for name, array in arrays.items():
        wanted = "<i4" if name == "faces" else "<f4"
        if array.ndim != 2 or array.shape[1] != 3 or array.dtype.str != wanted:
            raise ProtocolError(f"{name} of shape {array.shape} and dtype {array.dtype}; allowed is (n, 3) of {wanted}")
        if name in ("normals", "albedo") and len(array) != count:
            raise ProtocolError(f"{len(array)} {name} for {count} vertices; there must be one per vertex")
        if name != "faces" and not np.isfinite(array).all():
            raise ProtocolError(f"{name} holds numbers that are not finite")
    faces = arrays["faces"]
    if len(faces) and (faces.min() < 0 or faces.max() >= count):
        raise ProtocolError(f"a face names vertex {int(faces.max())} of {count}")
    facts = from_map(Provenance, {"facts": content["facts"]}).facts
    texture = _decode_texture(content, len(faces), room) if is_textured else None
    return MeshFile(arrays["vertices"], faces, arrays["normals"], arrays["albedo"], facts, texture)


def _decode_texture(content: dict[str, Any], faces: int, room: int) -> Texture:
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
        raise ProtocolError(f"a face corner names UV coordinate {int(corners.max())} of {len(uv)}")
    if not isinstance(content["png"], bytes):
        raise ProtocolError("the texture is not a PNG")
    check_square_png(content["png"], limits.TEXTURE_SMALLEST, limits.TEXTURE_LARGEST)
    return Texture(content["png"], uv, corners)
