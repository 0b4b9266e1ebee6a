# SPDX-License-Identifier: GPL-3.0-or-later
"""A binary glTF 2.0 writer for one colored or textured mesh: struct and json, nothing else."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.build import Mesh
from ..geometry.topology import FloatArray

MAGIC, VERSION, JSON_CHUNK, BINARY_CHUNK = 0x46546C67, 2, 0x4E4F534A, 0x004E4942
FLOAT, UNSIGNED_SHORT, UNSIGNED_INT = 5126, 5123, 5125
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP_TO_EDGE = 9729, 9987, 33071
ROUGHNESS = 0.95
FAR = 4.0  # radii of the mesh; farther away float32 positions lose more than two bits, so the node holds the position


def to_y_up(vectors: FloatArray) -> FloatArray:
    """Z up to glTF's Y up, a rotation by -90 degrees about x: (x, y, z) -> (x, z, -y). The front goes from -Y to +Z."""
    return np.stack([vectors[:, 0], vectors[:, 2], -vectors[:, 1]], axis=1)


class BinaryChunk:
    """The binary chunk, with the buffer views and accessors that describe it."""

    def __init__(self) -> None:
        self.blob = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def embed(self, data: bytes, **view: int) -> int:
        """Append bytes, padded to 4; the number of their view."""
        self.views.append({"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(data), **view})
        self.blob.extend(data + bytes(-len(data) % 4))
        return len(self.views) - 1

    def add(self, array: NDArray[Any], component: int, kind: str, target: int, bounds: bool = False) -> int:
        """Append an array; the number of its accessor."""
        accessor = {
            "bufferView": self.embed(np.ascontiguousarray(array).tobytes(), target=target),
            "componentType": component,
            "count": array.size if kind == "SCALAR" else len(array),
            "type": kind,
        }
        if bounds:
            accessor["min"] = [float(value) for value in array.min(axis=0)]
            accessor["max"] = [float(value) for value in array.max(axis=0)]
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def glb_bytes(mesh: Mesh, provenance: Mapping[str, Any], name: str = "prop") -> bytes:
    """The mesh as a .glb: POSITION, NORMAL, COLOR_0 (linear RGBA float32), indices, one rough non-metallic material.

    glTF multiplies COLOR_0 into the (white) base color; Blender's importer connects it to Base Color as the color
    attribute "Color". A textured mesh has TEXCOORD_0 and its texture as an embedded PNG (sRGB) instead of COLOR_0;
    vertices on the texture's seams are repeated. A mesh far from its origin, in float64, has its place in the node's
    translation. `provenance` (JSON values) becomes `extras` of the asset and of the node, which Blender shows as custom
    properties of the object. Raises ValueError or TypeError for values that JSON cannot hold.
    """
    extras = dict(provenance)
    binary = BinaryChunk()
    vertices, translation = _local(mesh.vertices)
    primitive = {
        "attributes": _attributes(binary, mesh, vertices),
        "indices": _indices(binary, mesh),
        "material": 0,
        "mode": 4,
    }
    color: dict[str, Any] = {
        "baseColorFactor": [1.0, 1.0, 1.0, 1.0],
        "metallicFactor": 0.0,
        "roughnessFactor": ROUGHNESS,
    }
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "Dreamwright", "extras": extras},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name, "extras": extras}],
        "meshes": [{"name": name, "primitives": [primitive]}],
        "materials": [{"name": f"{name} albedo", "pbrMetallicRoughness": color}],
    }
    if translation is not None:
        document["nodes"][0]["translation"] = translation
    if mesh.texture:
        color["baseColorTexture"] = {"index": 0}
        document["images"] = [{"name": name, "mimeType": "image/png", "bufferView": binary.embed(mesh.texture.png())}]
        edges = {"wrapS": CLAMP_TO_EDGE, "wrapT": CLAMP_TO_EDGE}
        document["samplers"] = [{"magFilter": LINEAR, "minFilter": LINEAR_MIPMAP_LINEAR, **edges}]
        document["textures"] = [{"source": 0, "sampler": 0}]
    document["buffers"] = [{"byteLength": len(binary.blob)}]
    document["bufferViews"], document["accessors"] = binary.views, binary.accessors
    return container(document, bytes(binary.blob))


def _local(vertices: FloatArray) -> tuple[FloatArray, list[float] | None]:
    """Y-up positions that float32 holds, and the translation (3) of their node where they were too far away for it."""
    turned = to_y_up(vertices)
    if vertices.dtype == np.float32:
        return turned, None
    low, high = turned.min(axis=0), turned.max(axis=0)
    if np.abs(turned).max() <= FAR * 0.5 * float((high - low).max()):
        return turned, None
    center = low + 0.5 * (high - low)
    return turned - center, [float(value) for value in center]


def _attributes(binary: BinaryChunk, mesh: Mesh, vertices: FloatArray) -> dict[str, int]:
    places = mesh.texture.unwrapping if mesh.texture else None
    rows = places.vertex if places else np.arange(len(mesh.vertices))
    normals = np.asarray(mesh.normals, dtype=np.float64)[rows]
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    attributes = {
        "POSITION": binary.add(vertices[rows].astype("<f4"), FLOAT, "VEC3", ARRAY_BUFFER, bounds=True),
        "NORMAL": binary.add(to_y_up(normals).astype("<f4"), FLOAT, "VEC3", ARRAY_BUFFER),
    }
    if places:
        attributes["TEXCOORD_0"] = binary.add(places.uv.astype("<f4"), FLOAT, "VEC2", ARRAY_BUFFER)
    else:
        colors = np.ones((len(mesh.albedo), 4), dtype="<f4")
        colors[:, :3] = np.clip(mesh.albedo, 0.0, 1.0)
        attributes["COLOR_0"] = binary.add(colors, FLOAT, "VEC4", ARRAY_BUFFER)
    return attributes


def _indices(binary: BinaryChunk, mesh: Mesh) -> int:
    faces = mesh.texture.unwrapping.corners if mesh.texture else mesh.faces
    count = len(mesh.texture.unwrapping.vertex) if mesh.texture else len(mesh.vertices)
    wide = count > 65535  # 65535 itself is reserved as the primitive restart value
    array = faces.reshape(-1).astype("<u4" if wide else "<u2")
    return binary.add(array, UNSIGNED_INT if wide else UNSIGNED_SHORT, "SCALAR", ELEMENT_ARRAY_BUFFER)


def container(document: Mapping[str, Any], blob: bytes) -> bytes:
    """A .glb of a JSON document and its binary chunk. Raises ValueError or TypeError for what JSON cannot hold."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(blob)
    header = struct.pack("<III", MAGIC, VERSION, total) + struct.pack("<II", len(text), JSON_CHUNK)
    return header + text + struct.pack("<II", len(blob), BINARY_CHUNK) + blob
