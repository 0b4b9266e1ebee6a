# SPDX-License-Identifier: GPL-3.0-or-later
"""A binary glTF 2.0 writer for finished assets: levels of detail (MSFT_lod), normal maps, tangents, collision hulls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..geometry.topology import FloatArray, IntArray
from .gltf_writer import (
    ARRAY_BUFFER,
    CLAMP_TO_EDGE,
    ELEMENT_ARRAY_BUFFER,
    FLOAT,
    LINEAR,
    LINEAR_MIPMAP_LINEAR,
    UNSIGNED_INT,
    UNSIGNED_SHORT,
    BinaryChunk,
    container,
    to_y_up,
)


@dataclass(frozen=True)
class AssetMaterial:
    """Constants, and images as PNG: albedo in display sRGB, normal map in tangent space; None: colors of vertices."""

    name: str
    roughness: float
    metallic: float
    albedo_png: bytes | None = None
    normal_png: bytes | None = None


@dataclass(frozen=True)
class AssetPart:
    """One object, Z up: positions and unit normals (V, 3), faces (F, 3), and where it has them uv (V, 2) with v down,
    tangents (V, 4), linear colors (V, 3). A part without a material is a collision hull.
    """

    name: str
    positions: FloatArray
    faces: IntArray
    normals: FloatArray | None = None
    uv: FloatArray | None = None
    tangents: FloatArray | None = None
    colors: FloatArray | None = None
    material: AssetMaterial | None = None


def asset_glb(parts: Sequence[AssetPart], provenance: Mapping[str, Any], coverage: Sequence[float] = ()) -> bytes:
    """A .glb of parts, each a node.

    With `coverage` the parts are levels of detail: the scene has the first, and the extension MSFT_lod its coarser
    ones; level i is shown while the share of the screen's height is at least coverage[i]. Without, all are in the
    scene. Raises ValueError or TypeError for provenance that JSON cannot hold.
    """
    binary = BinaryChunk()
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "Dreamwright", "extras": dict(provenance)},
        "scene": 0,
        "scenes": [{"nodes": [0] if coverage else list(range(len(parts)))}],
        "nodes": [{"mesh": number, "name": part.name} for number, part in enumerate(parts)],
        "meshes": [],
    }
    materials: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for part in parts:
        primitive: dict[str, Any] = {
            "attributes": _attributes(binary, part),
            "indices": _indices(binary, part),
            "mode": 4,
        }
        if part.material is not None:
            primitive["material"] = len(materials)
            materials.append(_material(binary, part.material, images))
        document["meshes"].append({"name": part.name, "primitives": [primitive]})
    if coverage and len(parts) > 1:
        document["extensionsUsed"] = ["MSFT_lod"]
        document["nodes"][0]["extensions"] = {"MSFT_lod": {"ids": list(range(1, len(parts)))}}
        document["nodes"][0]["extras"] = {"MSFT_screencoverage": [float(share) for share in coverage]}
    if materials:
        document["materials"] = materials
    if images:
        edges = {"wrapS": CLAMP_TO_EDGE, "wrapT": CLAMP_TO_EDGE}
        document["images"] = images
        document["samplers"] = [{"magFilter": LINEAR, "minFilter": LINEAR_MIPMAP_LINEAR, **edges}]
        document["textures"] = [{"source": number, "sampler": 0} for number in range(len(images))]
    document["buffers"] = [{"byteLength": len(binary.blob)}]
    document["bufferViews"], document["accessors"] = binary.views, binary.accessors
    return container(document, bytes(binary.blob))


def _attributes(binary: BinaryChunk, part: AssetPart) -> dict[str, int]:
    attributes = {
        "POSITION": binary.add(to_y_up(part.positions).astype("<f4"), FLOAT, "VEC3", ARRAY_BUFFER, bounds=True)
    }
    if part.normals is not None:
        attributes["NORMAL"] = binary.add(to_y_up(_unit(part.normals)).astype("<f4"), FLOAT, "VEC3", ARRAY_BUFFER)
    if part.tangents is not None:
        turned = np.concatenate([to_y_up(_unit(part.tangents[:, :3])), part.tangents[:, 3:]], axis=1)
        attributes["TANGENT"] = binary.add(turned.astype("<f4"), FLOAT, "VEC4", ARRAY_BUFFER)
    if part.uv is not None:
        attributes["TEXCOORD_0"] = binary.add(part.uv.astype("<f4"), FLOAT, "VEC2", ARRAY_BUFFER)
    if part.colors is not None:
        colors = np.ones((len(part.colors), 4), dtype="<f4")
        colors[:, :3] = np.clip(part.colors, 0.0, 1.0)
        attributes["COLOR_0"] = binary.add(colors, FLOAT, "VEC4", ARRAY_BUFFER)
    return attributes


def _indices(binary: BinaryChunk, part: AssetPart) -> int:
    wide = len(part.positions) > 65535  # 65535 itself is reserved as the primitive restart value
    array = part.faces.reshape(-1).astype("<u4" if wide else "<u2")
    return binary.add(array, UNSIGNED_INT if wide else UNSIGNED_SHORT, "SCALAR", ELEMENT_ARRAY_BUFFER)


def _material(binary: BinaryChunk, material: AssetMaterial, images: list[dict[str, Any]]) -> dict[str, Any]:
    color: dict[str, Any] = {
        "baseColorFactor": [1.0, 1.0, 1.0, 1.0],
        "metallicFactor": material.metallic,
        "roughnessFactor": material.roughness,
    }
    found: dict[str, Any] = {"name": material.name, "pbrMetallicRoughness": color}
    for kind, png, owner, key in (
        ("albedo", material.albedo_png, color, "baseColorTexture"),
        ("normal", material.normal_png, found, "normalTexture"),
    ):
        if png is not None:
            owner[key] = {"index": len(images)}
            images.append({"name": f"{material.name}_{kind}", "mimeType": "image/png", "bufferView": binary.embed(png)})
    return found


def _unit(vectors: FloatArray) -> FloatArray:
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
