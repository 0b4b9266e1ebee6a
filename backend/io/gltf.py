# SPDX-License-Identifier: GPL-3.0-or-later
"""A binary glTF 2.0 writer for one colored or textured mesh: struct and json, nothing else."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..geometry.build import Mesh

MAGIC, VERSION, JSON_CHUNK, BINARY_CHUNK = 0x46546C67, 2, 0x4E4F534A, 0x004E4942
FLOAT, UNSIGNED_SHORT, UNSIGNED_INT = 5126, 5123, 5125
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP_TO_EDGE = 9729, 9987, 33071
ROUGHNESS = 0.95


def to_y_up(vectors: np.ndarray) -> np.ndarray:
    """Z up to glTF's Y up, a rotation by -90 degrees about x: (x, y, z) -> (x, z, -y). The front goes from -Y to +Z."""
    return np.stack([vectors[:, 0], vectors[:, 2], -vectors[:, 1]], axis=1)


def glb_bytes(mesh: Mesh, provenance: Mapping[str, Any], name: str = "prop") -> bytes:
    """The mesh as a .glb: POSITION, NORMAL, COLOR_0 (linear RGBA float32), indices, one rough non-metallic material.

    A textured mesh has TEXCOORD_0 and its picture as an embedded PNG (sRGB, as glTF reads it) instead of COLOR_0, which would
    be multiplied into it; vertices on the picture's seams are there once for each of their places, with one normal. glTF multiplies COLOR_0 into the (white) base color; Blender's importer wires it to Principled Base Color as the
    color attribute "Color". `provenance` (JSON values) becomes `extras` of the asset, and of the node, which Blender
    shows as custom properties of the object. Raises ValueError or TypeError for values that JSON cannot hold.
    """
    blob = bytearray()
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []

    def embed(data: bytes, **told: int) -> int:
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": len(data), **told})
        blob.extend(data + bytes(-len(data) % 4))
        return len(views) - 1

    def add(array: np.ndarray, component: int, kind: str, target: int, bounds: bool = False) -> int:
        view = embed(np.ascontiguousarray(array).tobytes(), target=target)
        accessor = {
            "bufferView": view,
            "componentType": component,
            "count": array.size if kind == "SCALAR" else len(array),
            "type": kind,
        }
        if bounds:
            accessor["min"] = [float(value) for value in array.min(axis=0)]
            accessor["max"] = [float(value) for value in array.max(axis=0)]
        accessors.append(accessor)
        return len(accessors) - 1

    places = mesh.texture.unwrapping if mesh.texture else None
    whose = places.vertex if places else np.arange(len(mesh.vertices))
    vertices, normals = mesh.vertices[whose], np.asarray(mesh.normals, dtype=np.float64)[whose]
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    wide = len(vertices) > 65535  # 65535 itself is reserved as the primitive restart value
    attributes = {
        "POSITION": add(to_y_up(vertices).astype("<f4"), FLOAT, "VEC3", ARRAY_BUFFER, bounds=True),
        "NORMAL": add(to_y_up(normals).astype("<f4"), FLOAT, "VEC3", ARRAY_BUFFER),
    }
    if places:
        attributes["TEXCOORD_0"] = add(places.uv.astype("<f4"), FLOAT, "VEC2", ARRAY_BUFFER)
    else:
        colors = np.ones((len(mesh.albedo), 4), dtype="<f4")
        colors[:, :3] = np.clip(mesh.albedo, 0.0, 1.0)
        attributes["COLOR_0"] = add(colors, FLOAT, "VEC4", ARRAY_BUFFER)
    indices = add(
        (places.corners if places else mesh.faces).reshape(-1).astype("<u4" if wide else "<u2"),
        UNSIGNED_INT if wide else UNSIGNED_SHORT,
        "SCALAR",
        ELEMENT_ARRAY_BUFFER,
    )
    extras = dict(provenance)
    material = {
        "name": f"{name} albedo",
        "pbrMetallicRoughness": {
            "baseColorFactor": [1.0, 1.0, 1.0, 1.0],
            "metallicFactor": 0.0,
            "roughnessFactor": ROUGHNESS,
        },
    }
    document = {
        "asset": {"version": "2.0", "generator": "Dreamwright", "extras": extras},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name, "extras": extras}],
        "meshes": [
            {"name": name, "primitives": [{"attributes": attributes, "indices": indices, "material": 0, "mode": 4}]}
        ],
        "materials": [material],
        "buffers": [{"byteLength": len(blob)}],
        "bufferViews": views,
        "accessors": accessors,
    }
    if mesh.texture:
        picture = embed(mesh.texture.png())
        material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}
        document["buffers"][0]["byteLength"] = len(blob)
        document["images"] = [{"name": name, "mimeType": "image/png", "bufferView": picture}]
        edges = {"wrapS": CLAMP_TO_EDGE, "wrapT": CLAMP_TO_EDGE}
        document["samplers"] = [{"magFilter": LINEAR, "minFilter": LINEAR_MIPMAP_LINEAR, **edges}]
        document["textures"] = [{"source": 0, "sampler": 0}]
    text = json.dumps(document, allow_nan=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(blob)
    return b"".join(
        [
            struct.pack("<III", MAGIC, VERSION, total),
            struct.pack("<II", len(text), JSON_CHUNK),
            text,
            struct.pack("<II", len(blob), BINARY_CHUNK),
            bytes(blob),
        ]
    )
