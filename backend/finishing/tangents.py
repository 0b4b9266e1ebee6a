# SPDX-License-Identifier: GPL-3.0-or-later
"""Tangent frames of a textured mesh as MikkTSpace defines them, which glTF, Blender and the game engines use."""

from __future__ import annotations

import numpy as np

from ..geometry.topology import FloatArray, IntArray, half_edges, joined_corners, paired_half_edges
from ..geometry.unwrap import Unwrapping


def corner_tangents(
    vertices: FloatArray, faces: IntArray, normals: FloatArray, unwrapping: Unwrapping
) -> tuple[FloatArray, IntArray]:
    """Tangents (F, 3, 4) of the corners, xyz along rising u and w the sign of the bitangent; and their groups (F, 3).

    vertices (V, 3), faces (F, 3), normals (V, 3) unit. As mikktspace.c (Mikkelsen 2008) with an angular threshold of
    180 degrees: corners of one row of uv that meet across edges share a tangent while their faces are mapped with the
    same orientation; it is the sum over their faces of the unit derivative of the position by u, in the plane across
    the normal, weighted by the corner's angle. bitangent = w cross(normal, tangent) points to the top of the image.
    """
    position = np.asarray(vertices, dtype=np.float64)[faces]
    normal = np.asarray(normals, dtype=np.float64)[faces]
    uv = np.asarray(unwrapping.uv, dtype=np.float64)[unwrapping.corners]
    uv = np.stack([uv[..., 0], 1.0 - uv[..., 1]], axis=-1)  # MikkTSpace's v rises to the top
    along, across = position[:, 1] - position[:, 0], position[:, 2] - position[:, 0]
    first, second = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    sign = np.where(area > 0, 1.0, -1.0)
    derivative = sign[:, None] * (second[:, 1, None] * along - first[:, 1, None] * across)
    groups = _groups(unwrapping.corners, sign)
    tangent = _unit(derivative[:, None] - (derivative[:, None] * normal).sum(-1, keepdims=True) * normal)
    weighted = tangent * (_corner_angles(position, normal) * (area != 0)[:, None])[..., None]
    total = np.zeros((int(groups.max()) + 1, 3))
    np.add.at(total, groups.reshape(-1), weighted.reshape(-1, 3))
    found = _unit(total)[groups]
    missing = np.linalg.norm(found, axis=-1) < 0.5  # no face of the group has an area in uv
    found = np.where(missing[..., None], _perpendicular(normal), found)
    return np.concatenate([found, np.broadcast_to(sign[:, None, None], (*sign.shape, 3, 1))], axis=-1), groups


def with_tangents(
    vertices: FloatArray, faces: IntArray, normals: FloatArray, unwrapping: Unwrapping
) -> tuple[Unwrapping, FloatArray]:
    """The unwrapping with a row for every tangent that a row of uv has, and the tangents (U, 4) of its rows."""
    tangents, groups = corner_tangents(vertices, faces, normals, unwrapping)
    flat = groups.reshape(-1)
    _, first, corners = np.unique(flat, return_index=True, return_inverse=True)
    rows = unwrapping.corners.reshape(-1)[first]
    split = Unwrapping(
        unwrapping.uv[rows], corners.reshape(groups.shape).astype(np.int32), unwrapping.vertex[rows].astype(np.int32)
    )
    return split, tangents.reshape(-1, 4)[first]


def _groups(corners: IntArray, sign: FloatArray) -> IntArray:
    """(F, 3) numbers of corners that share a tangent."""
    directed, _ = half_edges(corners)
    first, second = paired_half_edges(corners)
    same = sign[first % len(corners)] == sign[second % len(corners)]
    return joined_corners(directed, first[same], second[same])


def _corner_angles(position: FloatArray, normal: FloatArray) -> FloatArray:
    """(F, 3) angles in radians between the two edges at each corner, in the plane across its normal."""
    sides = []
    for step in (1, 2):
        edge = np.roll(position, -step, axis=1) - position
        sides.append(_unit(edge - (edge * normal).sum(-1, keepdims=True) * normal))
    return np.arccos(np.clip((sides[0] * sides[1]).sum(-1), -1.0, 1.0))


def _unit(vectors: FloatArray) -> FloatArray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 1e-30, vectors / np.maximum(length, 1e-30), 0.0)


def _perpendicular(normal: FloatArray) -> FloatArray:
    axis = np.eye(3)[np.abs(normal).argmin(axis=-1)]
    return _unit(np.cross(axis, normal))
