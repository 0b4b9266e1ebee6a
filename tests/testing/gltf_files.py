# SPDX-License-Identifier: GPL-3.0-or-later
"""Hypothesis strategy for glTF files of every container, transform, accessor, topology and color."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
from hypothesis import strategies as st

from .mesh_files import (
    CUBE,
    GRAY,
    QUADS,
    TEXEL_UV,
    TRIANGLES,
    MeshCase,
    png,
    rgb8,
    signed_volume,
    to_linear,
    vertex_colors8,
)

quarter = st.integers(-8, 8).map(lambda n: n / 4)
nonzero = st.sampled_from([-3.0, -1.0, -0.5, 0.25, 1.0, 2.0])


@st.composite
def transforms(draw: st.DrawFn) -> tuple[dict[str, Any], np.ndarray]:
    """A glTF node's transform and its (4, 4) matrix: matrix or TRS, also mirrored and non-uniform."""
    scale = np.array(draw(st.tuples(nonzero, nonzero, nonzero)))
    shift = np.array(draw(st.tuples(quarter, quarter, quarter)))
    axis = draw(
        st.sampled_from([(0, 0, 0, 1), (0.5, 0.5, 0.5, 0.5), (0, 0.6, 0, 0.8), (-0.6, 0, 0.8, 0), (0, 0, 1, 0)])
    )
    x, y, z, w = axis
    # v + 2 w (q x v) + 2 q x (q x v), column by column
    q = np.array([x, y, z])
    turn = np.stack([e + 2 * w * np.cross(q, e) + 2 * np.cross(q, np.cross(q, e)) for e in np.eye(3)], axis=1)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn @ np.diag(scale), shift
    kind = draw(st.sampled_from(["none", "matrix", "trs", "translation", "scale"]))
    if kind == "none":
        return {}, np.eye(4)
    if kind == "matrix":
        return {"matrix": matrix.T.reshape(-1).tolist()}, matrix
    if kind == "trs":
        return {"translation": shift.tolist(), "rotation": list(axis), "scale": scale.tolist()}, matrix
    only = np.eye(4)
    if kind == "translation":
        only[:3, 3] = shift
        return {"translation": shift.tolist()}, only
    only[:3, :3] = np.diag(scale)
    return {"scale": scale.tolist()}, only


class _Blob:
    """The buffer of a glTF file under construction."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []
        self.texture: int | None = None  # view of the one image

    def view(self, data: bytes, **more: int) -> int:
        self.data.extend(bytes(-len(self.data) % 4))
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data), **more})
        self.data.extend(data)
        return len(self.views) - 1

    def accessor(
        self, array: np.ndarray, kind: str, normalized: bool = False, stride: int = 0, sparse: bool = False
    ) -> int:
        component = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}[array.dtype.str[1:]]
        entry: dict[str, Any] = {"componentType": component, "count": len(array), "type": kind}
        if normalized:
            entry["normalized"] = True
        if sparse:  # half of the values; the rest have no buffer and are zero, so they must be zero in the array
            rows = np.flatnonzero((array != 0).any(axis=1)).astype("<u2")
            indices, values = self.view(rows.tobytes()), self.view(np.ascontiguousarray(array[rows]).tobytes())
            entry["sparse"] = {
                "count": len(rows),
                "indices": {"bufferView": indices, "componentType": 5123},
                "values": {"bufferView": values},
            }
        elif stride:
            size = array.dtype.itemsize * array.shape[1]
            padded = np.full((len(array), stride), 0xAB, dtype=np.uint8)
            padded[:, 4 : 4 + size] = np.ascontiguousarray(array).view(np.uint8).reshape(len(array), size)
            entry |= {"bufferView": self.view(padded.tobytes(), byteStride=stride), "byteOffset": 4}
        else:
            entry["bufferView"] = self.view(np.ascontiguousarray(array).tobytes())
        self.accessors.append(entry)
        return len(self.accessors) - 1


POSITION_KINDS = ["f4", "i2 normalized", "u2 normalized", "i1 normalized", "i2", "u1"]


def _stored_positions(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The cube as stored in an accessor, and its decoded positions."""
    if kind == "f4":
        return CUBE.astype("<f4"), CUBE
    dtype = "<" + kind[:2] if kind[:2] != "u1" else "u1"
    whole = np.iinfo(dtype)
    if "normalized" in kind:
        low = -whole.max if kind[0] == "i" else 0
        stored = np.where(CUBE > 0, whole.max, low).astype(dtype)
        return stored, stored.astype(np.float64) / whole.max
    stored = (3 * CUBE + (4 if kind[0] == "u" else 0)).astype(dtype)
    return stored, stored.astype(np.float64)


@st.composite
def gltf_files(draw: st.DrawFn) -> MeshCase:
    """A cube under one to three nested nodes, in any container, with any accessors, topology and colors."""
    blob = _Blob()
    kind = draw(st.sampled_from(POSITION_KINDS))
    stored, meaning = _stored_positions(kind)
    sparse = draw(st.booleans()) and kind == "u2 normalized"
    wide = draw(st.booleans()) and kind in ("f4", "i2")  # interleaved by its stride
    position = blob.accessor(stored, "VEC3", "normalized" in kind, 20 if wide else 0, sparse)
    nodes, world = [], np.eye(4)
    for depth in range(draw(st.integers(1, 3))):
        transform, matrix = draw(transforms())
        nodes.append({**transform, "children": [depth + 1]})
        world = world @ matrix
    del nodes[-1]["children"]
    nodes[-1]["mesh"] = 0
    attributes: dict[str, int] = {"POSITION": position}
    material, albedo = _gltf_colors(draw, blob, attributes)
    primitives, faces = _primitives(draw, blob, attributes, material)
    if faces is None:  # no indices: every corner is a vertex of its own
        meaning, albedo = meaning[TRIANGLES.reshape(-1)], albedo[TRIANGLES.reshape(-1)]
        faces = np.arange(3 * len(TRIANGLES)).reshape(-1, 3)
    if draw(st.booleans()):  # data to ignore
        primitives.append({"attributes": {"POSITION": position}, "mode": draw(st.sampled_from([0, 1, 3]))})
    vertices = meaning @ world[:3, :3].T + world[:3, 3]
    if np.linalg.det(world[:3, :3]) < 0:
        faces = faces[:, ::-1]
    unused = {"mesh": 0, "translation": [100.0, 0, 0]}  # a node of another scene
    document: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scene": 1,
        "scenes": [{"nodes": [len(nodes)]}, {"nodes": [0]}],
        "nodes": [*nodes, unused],
        "meshes": [{"primitives": primitives}],
        "accessors": blob.accessors,
        **({"materials": [material]} if material is not None else {}),
    }
    if blob.texture is not None:
        document |= {"textures": [{"source": 0}], "images": [{"bufferView": blob.texture, "mimeType": "image/png"}]}
    if kind != "f4":
        document["extensionsUsed"] = document["extensionsRequired"] = ["KHR_mesh_quantization"]
    document["bufferViews"] = blob.views
    files = _container(draw, document, bytes(blob.data))
    return MeshCase(files, vertices, faces, signed_volume(vertices, faces), albedo)


def _gltf_colors(draw: st.DrawFn, blob: _Blob, attributes: dict[str, int]) -> tuple[dict[str, Any] | None, np.ndarray]:
    """Any of COLOR_0, factor and texture, and the albedo (8, 3) that they make."""
    albedo, material = np.ones((8, 3)), None
    color = draw(st.sampled_from(["none", "f4", "u1", "u2"]))
    if color != "none":
        given = draw(vertex_colors8).astype(np.float64) / 255
        width = draw(st.sampled_from([3, 4]))
        if color == "f4":
            stored = given.astype("<f4")
            albedo = albedo * stored
        else:
            top = np.iinfo(color).max
            stored = np.rint(given * top).astype("<" + color if color != "u1" else "u1")
            albedo = albedo * (stored / top)
        rows = np.concatenate([stored, np.full((8, width - 3), stored.max(), stored.dtype)], axis=1)
        pad = -rows.itemsize * width % 4  # attributes start at multiples of 4
        attributes["COLOR_0"] = blob.accessor(rows, f"VEC{width}", color != "f4", 4 + rows.itemsize * width + pad)
    if draw(st.booleans()):
        factor = np.array(draw(rgb8)) / 255
        albedo = albedo * factor
        material = {"pbrMetallicRoughness": {"baseColorFactor": [*factor.tolist(), 1.0]}}
    if draw(st.booleans()):
        pixels = draw(vertex_colors8).reshape(2, 4, 3)
        blob.texture = blob.view(png(pixels))
        uv = TEXEL_UV
        material = material or {"pbrMetallicRoughness": {}}
        reference: dict[str, Any] = {"index": 0}
        if draw(st.booleans()):
            # offset + scale * uv: the attribute holds the inverse
            uv = (TEXEL_UV - [0.25, 0.5]) / [0.5, 2.0]
            reference["extensions"] = {"KHR_texture_transform": {"offset": [0.25, 0.5], "scale": [0.5, 2.0]}}
        attributes["TEXCOORD_0"] = blob.accessor(uv.astype("<f4"), "VEC2")
        material["pbrMetallicRoughness"]["baseColorTexture"] = reference
        albedo = albedo * to_linear(pixels.reshape(8, 3) / 255)
    if material is None and color == "none":
        albedo = np.full((8, 3), GRAY)
    return material, albedo


def _primitives(
    draw: st.DrawFn, blob: _Blob, attributes: dict[str, int], material: dict[str, Any] | None
) -> tuple[list[dict[str, Any]], np.ndarray | None]:
    """Primitives that cover the cube, and their triangles in order; None where there are no indices."""
    shared = {"attributes": attributes, **({"material": 0} if material is not None else {})}
    topology = draw(st.sampled_from(["triangles", "two primitives", "strips", "fans", "no indices"]))
    if topology == "no indices":
        plain = {}
        for name, index in attributes.items():
            entry = blob.accessors[index]
            plain[name] = _repeated(blob, entry)
        return [{**shared, "attributes": plain, "mode": 4}], None
    kind = draw(st.sampled_from(["u1", "<u2", "<u4"]))
    if topology in ("triangles", "two primitives"):
        cut = 5 if topology == "two primitives" else 12
        parts = [part for part in (TRIANGLES[:cut], TRIANGLES[cut:]) if len(part)]
        return [
            {**shared, "indices": blob.accessor(part.reshape(-1, 1).astype(kind), "SCALAR")} for part in parts
        ], TRIANGLES
    primitives, faces = [], []
    for a, b, c, d in QUADS:
        if topology == "strips":
            corners, made = [a, b, d, c], [[a, b, d], [b, c, d]]
        else:
            corners, made = [a, b, c, d], [[a, b, c], [a, c, d]]
        indices = blob.accessor(np.array(corners).reshape(-1, 1).astype(kind), "SCALAR")
        primitives.append({**shared, "indices": indices, "mode": 5 if topology == "strips" else 6})
        faces += made
    return primitives, np.array(faces)


def _repeated(blob: _Blob, entry: dict[str, Any]) -> int:
    """A plain accessor with an entry for each corner of the cube's triangles."""
    dtype = np.dtype({5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5126: "<f4"}[entry["componentType"]])
    width = int(entry["type"][-1])
    if "sparse" in entry:
        rows = _plain(blob, entry["sparse"]["indices"]["bufferView"], np.dtype("<u2"), 1)[:, 0]
        array = np.zeros((entry["count"], width), dtype)
        array[rows] = _plain(blob, entry["sparse"]["values"]["bufferView"], dtype, width)
    else:
        view = blob.views[entry["bufferView"]]
        stride = view.get("byteStride", dtype.itemsize * width)
        start = view["byteOffset"] + entry.get("byteOffset", 0)
        array = np.stack([np.frombuffer(blob.data, dtype, width, start + stride * row) for row in range(8)])
    rows_of_corners = array[TRIANGLES.reshape(-1)]
    size = dtype.itemsize * width
    return blob.accessor(rows_of_corners, entry["type"], entry.get("normalized", False), 4 + size + -size % 4)


def _plain(blob: _Blob, index: int, dtype: np.dtype, width: int) -> np.ndarray:
    view = blob.views[index]
    count = view["byteLength"] // dtype.itemsize
    return np.frombuffer(blob.data, dtype, count, view["byteOffset"]).reshape(-1, width)


def _container(draw: st.DrawFn, document: dict[str, Any], blob: bytes) -> dict[str, bytes]:
    form = draw(st.sampled_from(["glb", "data URI", "file"]))
    buffer: dict[str, Any] = {"byteLength": len(blob)}
    document["buffers"] = [buffer]
    if form == "data URI":
        buffer["uri"] = "data:application/octet-stream;base64," + base64.b64encode(blob).decode()
        return {"mesh.gltf": json.dumps(document).encode()}
    if form == "file":
        name = draw(st.sampled_from(["mesh.bin", "my mesh #1.bin", "größe 100%.bin"]))
        buffer["uri"] = "".join(c if (c.isalnum() and c.isascii()) or c == "." else _percent(c) for c in name)
        return {"mesh.gltf": json.dumps(document).encode(), name: blob}
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    blob += bytes(-len(blob) % 4)
    total = 12 + 8 + len(text) + 8 + len(blob)
    parts = [struct.pack("<4sII", b"glTF", 2, total), struct.pack("<I4s", len(text), b"JSON"), text]
    return {"mesh.glb": b"".join([*parts, struct.pack("<I4s", len(blob), b"BIN\0"), blob])}


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())
