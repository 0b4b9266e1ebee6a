# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads back the .glb files that `gltf.py` writes: one vertex-colored mesh, and nothing of glTF beyond that."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DreamwrightError, ExportError
from ..geometry.build import Mesh
from .gltf import BINARY_CHUNK, FLOAT, JSON_CHUNK, MAGIC, UNSIGNED_INT, UNSIGNED_SHORT

KINDS = {FLOAT: "<f4", UNSIGNED_SHORT: "<u2", UNSIGNED_INT: "<u4"}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}


def read_glb(path: Path) -> Mesh:
    """The mesh of a .glb of Dreamwright's. Raises ExportError for any other file."""
    try:
        content = path.read_bytes()
        document, blob = _chunks(content)
        primitive = document["meshes"][0]["primitives"][0]
        attributes = primitive["attributes"]
        if "TEXCOORD_0" in attributes:
            raise ExportError(
                f"{path} has its colors in a texture, which is not read here; give one made without --texture"
            )
        arrays = {name: _accessor(document, blob, attributes[name]) for name in ("POSITION", "NORMAL", "COLOR_0")}
        faces = _accessor(document, blob, primitive["indices"]).reshape(-1, 3).astype(np.int32)
        if (faces.size and faces.max() >= len(arrays["POSITION"])) or len(
            {len(array) for array in arrays.values()}
        ) != 1:
            raise ValueError("its faces and vertices do not fit")
    except DreamwrightError:
        raise
    except (OSError, ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise ExportError(
            f"{path} is no .glb that Dreamwright wrote ({error}); give the file that `dreamwright generate` left"
        ) from error
    return Mesh(
        _z_up(arrays["POSITION"]), faces, np.ascontiguousarray(arrays["COLOR_0"][:, :3]), _z_up(arrays["NORMAL"])
    )


def _chunks(content: bytes) -> tuple[dict[str, Any], bytes]:
    magic, version, total = struct.unpack_from("<III", content)
    length, kind = struct.unpack_from("<II", content, 12)
    if magic != MAGIC or version != 2 or kind != JSON_CHUNK or total != len(content):
        raise ValueError("no whole binary glTF 2")
    document = json.loads(content[20 : 20 + length])
    size, kind = struct.unpack_from("<II", content, 20 + length)
    if kind != BINARY_CHUNK:
        raise ValueError("no binary chunk")
    return document, content[28 + length : 28 + length + size]


def _accessor(document: dict[str, Any], blob: bytes, index: int) -> np.ndarray:
    accessor = document["accessors"][index]
    view, width = document["bufferViews"][accessor["bufferView"]], WIDTHS[accessor["type"]]
    count = int(accessor["count"]) * width
    array = np.frombuffer(blob, KINDS[accessor["componentType"]], count, int(view["byteOffset"]))
    return array.reshape(-1, width)


def _z_up(vectors: np.ndarray) -> np.ndarray:
    """The inverse of `gltf.to_y_up`."""
    return np.ascontiguousarray(np.stack([vectors[:, 0], -vectors[:, 2], vectors[:, 1]], axis=1), dtype=np.float32)
