# SPDX-License-Identifier: GPL-3.0-or-later
"""A glTF 2.0 scene as one mesh: node transforms, skins in their rest pose, morph targets, strips, fans, base colors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..geometry.topology import FloatArray, IntArray
from .gltf_file import GltfFile, mapping
from .gltf_materials import MaterialReader
from .mesh_data import FaceTexture, MeshData, UnreadableMeshError, check_indices, mean_corner_colors

TRIANGLES, STRIP, FAN = 4, 5, 6
MOST_NODES = 100_000  # instances; a small file could ask for any number of copies of one mesh


@dataclass
class _Block:
    """Vertices of one placed mesh that one or more primitives share, with the primitives' faces and vertex colors."""

    vertices: FloatArray
    faces: list[IntArray] = field(default_factory=list)
    colors: list[FloatArray] = field(default_factory=list)
    textures: list[FaceTexture | None] = field(default_factory=list)  # one of each of `faces`
    normals: FloatArray | None = None


def read_gltf(path: Path) -> MeshData:
    """All triangles of the default scene in glTF's frame (Y up), in the order of nodes and primitives.

    Each vertex is counted once a node, however many primitives share it. Faces are turned over where the node's
    transform mirrors. Points and lines are left out. Raises UnreadableMeshError, OSError, and LookupError, TypeError or
    ValueError for damaged documents.
    """
    gltf = GltfFile(path)
    materials = MaterialReader(gltf)
    globals_, order = _global_transforms(gltf)
    blocks: list[_Block] = []
    for index in order:
        node = gltf.item("nodes", index)
        if "mesh" in node:
            if "EXT_mesh_gpu_instancing" in (node.get("extensions") or {}):
                raise UnreadableMeshError("it places instances by EXT_mesh_gpu_instancing; export it without")
            blocks += _placed_mesh(gltf, materials, node, globals_[index], globals_)
    if not gltf.items("nodes"):  # a library of meshes without a scene
        for index in range(len(gltf.items("meshes"))):
            blocks += _placed_mesh(gltf, materials, {"mesh": index}, np.eye(4), {})
    blocks = [block for block in blocks if block.faces]
    if not blocks:
        raise UnreadableMeshError("it holds no triangles")
    starts = np.cumsum([0, *(len(block.vertices) for block in blocks[:-1])])
    return MeshData(
        np.concatenate([block.vertices for block in blocks]),
        np.concatenate([np.concatenate(block.faces) + start for block, start in zip(blocks, starts, strict=True)]),
        np.concatenate([_block_colors(block) for block in blocks]),
        normals=_joined_normals(blocks),
        textures=tuple(_numbered_textures(blocks)),
    )


def _global_transforms(gltf: GltfFile) -> tuple[dict[int, FloatArray], list[int]]:
    """Transform (4, 4) of every node of the default scene, and the nodes depth first. Without a scene: all roots."""
    nodes, scenes = gltf.items("nodes"), gltf.items("scenes")
    if scenes:
        roots = gltf.item("scenes", gltf.document.get("scene", 0)).get("nodes", [])
    else:
        children = {child for node in nodes for child in node.get("children", [])}
        roots = [index for index in range(len(nodes)) if index not in children]
    found: dict[int, FloatArray] = {}
    order: list[int] = []
    waiting = [(index, np.eye(4)) for index in reversed(roots)]
    while waiting:
        index, parent = waiting.pop()
        node = gltf.item("nodes", index)
        if index in found:
            raise UnreadableMeshError(f"its node {index} has two parents or is its own descendant")
        found[index] = parent @ _local_transform(node)
        order.append(index)
        waiting += [(child, found[index]) for child in reversed(node.get("children", []))]
    if len(order) > MOST_NODES:
        raise UnreadableMeshError(f"it has {len(order)} nodes; allowed are {MOST_NODES}")
    return found, order


def _local_transform(node: Mapping[str, Any]) -> FloatArray:
    """(4, 4) of `matrix` (column by column) or T R S with the quaternion (x, y, z, w), normalized."""
    if "matrix" in node:
        matrix = _vector(node["matrix"], 16, "matrix").reshape(4, 4).T
        if not np.array_equal(matrix[3], [0.0, 0.0, 0.0, 1.0]):
            raise UnreadableMeshError("a node's matrix is not affine: its last row is not 0 0 0 1")
        return matrix
    x, y, z, w = _vector(node.get("rotation", [0, 0, 0, 1]), 4, "rotation")
    length = float(np.sqrt(x * x + y * y + z * z + w * w))
    if length == 0.0:
        raise UnreadableMeshError("a node's rotation is the quaternion 0")
    x, y, z, w = x / length, y / length, z / length, w / length
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    transform = np.eye(4)
    transform[:3, :3] = rotation * _vector(node.get("scale", [1, 1, 1]), 3, "scale")
    transform[:3, 3] = _vector(node.get("translation", [0, 0, 0]), 3, "translation")
    return transform


def _vector(values: Any, count: int, what: str) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise UnreadableMeshError(f"a node's {what} is no list of {count} finite numbers")
    return array


def _placed_mesh(
    gltf: GltfFile,
    materials: MaterialReader,
    node: Mapping[str, Any],
    transform: FloatArray,
    globals_: Mapping[int, FloatArray],
) -> list[_Block]:
    """The mesh of a node, placed: one block for each distinct array of positions."""
    mesh = gltf.item("meshes", node["mesh"])
    weights = node.get("weights", mesh.get("weights", []))
    blocks: dict[bytes, _Block] = {}
    for primitive in mesh.get("primitives", []):
        attributes = mapping(primitive.get("attributes"), "primitive's attributes")
        if primitive.get("mode", TRIANGLES) not in (TRIANGLES, STRIP, FAN) or "POSITION" not in attributes:
            continue
        local = _positions(gltf, primitive, weights)
        faces = _triangles(gltf, primitive, len(local))
        placed, mirrored = _place(gltf, attributes, local, node, transform, globals_)
        if mirrored:
            faces = faces[:, ::-1]
        if len(faces):
            normals = _normals(gltf, attributes, len(local), transform) if node.get("skin") is None else None
            block = blocks.setdefault(local.tobytes(), _Block(placed, normals=normals))
            block.faces.append(faces)
            block.colors.append(materials.linear_colors(primitive, len(local)))
            block.textures.append(materials.face_texture(primitive, len(local), faces, 0))
    return list(blocks.values())


def _positions(gltf: GltfFile, primitive: Mapping[str, Any], weights: Sequence[float]) -> FloatArray:
    """(V, 3) POSITION with the morph targets at the mesh's or node's default weights."""
    accessor = gltf.item("accessors", primitive["attributes"]["POSITION"])
    if "bufferView" not in accessor and "sparse" not in accessor:
        compressed = [name for name in (primitive.get("extensions") or {}) if "compression" in name]
        if compressed:
            raise UnreadableMeshError(f"it is compressed with the glTF extension {compressed[0]}; export it without")
    positions = gltf.floats(primitive["attributes"]["POSITION"], ("VEC3",), "POSITION")
    for weight, target in zip(weights, primitive.get("targets", []), strict=False):
        if weight and "POSITION" in target:
            moved = gltf.floats(target["POSITION"], ("VEC3",), "morph target")
            if len(moved) != len(positions):
                raise UnreadableMeshError(f"a morph target has {len(moved)} entries for {len(positions)} vertices")
            positions = positions + float(weight) * moved
    return positions


def _triangles(gltf: GltfFile, primitive: Mapping[str, Any], count: int) -> IntArray:
    """(F, 3) faces of a primitive; triangles of a strip that repeat a vertex only connect its parts and are dropped."""
    if primitive.get("indices") is not None:
        raw = gltf.numbers(primitive["indices"], ("SCALAR",), "indices")[:, 0]
        if raw.dtype.kind != "u":
            raise UnreadableMeshError("its indices are not unsigned whole numbers")
        corners = raw.astype(np.int64)
    else:
        corners = np.arange(count)
    check_indices(corners, count)
    mode = primitive.get("mode", TRIANGLES)
    if mode == TRIANGLES:
        if len(corners) % 3:
            raise UnreadableMeshError(f"a primitive has {len(corners)} indices, which is no multiple of 3")
        return corners.reshape(-1, 3)
    number = np.arange(max(len(corners) - 2, 0))
    if mode == FAN:
        faces = np.stack([number + 1, number + 2, np.zeros_like(number)], axis=1)
    else:
        faces = np.stack([number, number + 1 + number % 2, number + 2 - number % 2], axis=1)
    faces = corners[faces]
    return faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]


def _place(
    gltf: GltfFile,
    attributes: Mapping[str, Any],
    local: FloatArray,
    node: Mapping[str, Any],
    transform: FloatArray,
    globals_: Mapping[int, FloatArray],
) -> tuple[FloatArray, bool]:
    """Vertices (V, 3) in the scene's frame, and whether the transform mirrors. A skin replaces the node's transform."""
    if node.get("skin") is None or "JOINTS_0" not in attributes:
        if np.array_equal(transform, np.eye(4)):
            return local, False
        return local @ transform[:3, :3].T + transform[:3, 3], bool(np.linalg.det(transform[:3, :3]) < 0)
    joints = np.stack(list(_joint_matrices(gltf, gltf.item("skins", node["skin"]), globals_)))
    blended, total = np.zeros((len(local), 4, 4)), np.zeros(len(local))
    for number in range(sum(name.startswith("JOINTS_") for name in attributes)):
        joint = gltf.numbers(attributes[f"JOINTS_{number}"], ("VEC4",), "JOINTS").astype(np.int64)
        weight = gltf.floats(attributes[f"WEIGHTS_{number}"], ("VEC4",), "WEIGHTS", normalized=True)
        if len(joint) != len(local) or len(weight) != len(local) or (joint.size and joint.max() >= len(joints)):
            raise UnreadableMeshError("its skin weights do not fit its vertices and joints")
        blended += np.einsum("vk,vkij->vij", weight, joints[joint])
        total += weight.sum(axis=1)
    blended[total == 0] = np.eye(4)
    blended[total > 0] /= total[total > 0, None, None]
    placed = np.einsum("vij,vj->vi", blended[:, :3, :3], local) + blended[:, :3, 3]
    mirrored = np.linalg.det(blended[:, :3, :3]) < 0
    return placed, bool(mirrored.mean() > 0.5)


def _normals(gltf: GltfFile, attributes: Mapping[str, Any], count: int, transform: FloatArray) -> FloatArray | None:
    """(V, 3) unit NORMAL in the scene's frame; None where the primitive has no usable one."""
    if "NORMAL" not in attributes:
        return None
    normals = gltf.floats(attributes["NORMAL"], ("VEC3",), "NORMAL")
    if len(normals) != count or not np.isfinite(normals).all():
        return None
    x, y, z = transform[:3, :3].T
    cofactors = np.stack([np.cross(y, z), np.cross(z, x), np.cross(x, y)], axis=1)  # of a plane's normal, also mirrored
    turned = normals @ cofactors.T * (1.0 if np.linalg.det(transform[:3, :3]) >= 0 else -1.0)
    return turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-300)


def _joined_normals(blocks: Sequence[_Block]) -> FloatArray | None:
    found = [block.normals for block in blocks if block.normals is not None]
    return np.concatenate(found) if len(found) == len(blocks) else None


def _numbered_textures(blocks: Sequence[_Block]) -> Iterator[FaceTexture]:
    """The textures with the numbers that their faces have among all of the scene."""
    first = 0
    for block in blocks:
        for faces, texture in zip(block.faces, block.textures, strict=True):
            if texture is not None:
                yield replace(texture, first=first)
            first += len(faces)


def _joint_matrices(
    gltf: GltfFile, skin: Mapping[str, Any], globals_: Mapping[int, FloatArray]
) -> Iterator[FloatArray]:
    """(4, 4) of each joint: its global transform times its inverse bind matrix."""
    joints = skin["joints"]
    inverse = np.tile(np.eye(4), (len(joints), 1, 1))
    if "inverseBindMatrices" in skin:
        columns = gltf.floats(skin["inverseBindMatrices"], ("MAT4",), "inverseBindMatrices")
        if len(columns) < len(joints):
            raise UnreadableMeshError(f"its skin has {len(columns)} inverse bind matrices for {len(joints)} joints")
        inverse = columns.reshape(-1, 4, 4).transpose(0, 2, 1)
    for number, joint in enumerate(joints):
        if joint not in globals_:
            raise UnreadableMeshError(f"its skin has the joint {joint}, which is no node of the scene")
        yield globals_[joint] @ inverse[number]


def _block_colors(block: _Block) -> FloatArray:
    if len(block.colors) == 1:
        return block.colors[0]
    corners = [faces.reshape(-1) for faces in block.faces]
    colors = np.concatenate([own[at] for own, at in zip(block.colors, corners, strict=True)])
    return mean_corner_colors(len(block.vertices), np.concatenate(corners), colors, block.colors[0])
