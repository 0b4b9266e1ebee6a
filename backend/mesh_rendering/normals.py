# SPDX-License-Identifier: GPL-3.0-or-later
"""Normals of a mesh's corners: smooth within a surface, broken at its creases, differentiable with the vertices."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional


def face_cross(vertices: Tensor, faces: Tensor) -> Tensor:
    """(b - a) x (c - a) of each face: (F, 3), twice its area long."""
    a, b, c = (vertices.index_select(0, faces[:, corner]) for corner in range(3))
    return torch.linalg.cross(b - a, c - a)


def smooth_groups(vertices: NDArray[np.floating], faces: NDArray[np.integer], crease_deg: float) -> NDArray[np.int64]:
    """Number (F, 3) of the normal that each corner has: corners of one vertex share it across edges that are flatter
    than `crease_deg`. With 180 every vertex has one normal for each fan of faces, with 0 every face its own.
    """
    faces = np.asarray(faces, dtype=np.int64)
    count = len(faces)
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    cross = np.cross(b - a, c - a)
    unit = cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-30)
    start = np.tile(np.arange(3), count)
    end = (start + 1) % 3
    face = np.repeat(np.arange(count), 3)
    ends = np.stack([faces[face, start], faces[face, end]], axis=1)
    low, high = ends.min(axis=1), ends.max(axis=1)
    order = np.lexsort((high, low))
    paired = (low[order][1:] == low[order][:-1]) & (high[order][1:] == high[order][:-1])
    first, second = order[:-1][paired], order[1:][paired]
    flat = (unit[face[first]] * unit[face[second]]).sum(axis=1) > np.cos(np.radians(crease_deg))
    first, second = first[flat], second[flat]
    same = ends[first, 0] == ends[second, 0]
    one, other = 3 * face + start, 3 * face + end  # corner numbers of each directed edge's ends
    rows = np.concatenate([one[first], other[first]])
    columns = np.concatenate([np.where(same, one[second], other[second]), np.where(same, other[second], one[second])])
    graph = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(3 * count, 3 * count))
    return connected_components(graph, directed=False)[1].reshape(count, 3).astype(np.int64)


def corner_normals(vertices: Tensor, faces: Tensor, groups: Tensor) -> Tensor:
    """Unit normals (F * 3, 3) of the corners: the area-weighted mean over each group of `smooth_groups`."""
    cross = face_cross(vertices, faces)
    flat = groups.reshape(-1)
    total = torch.zeros(int(flat.max()) + 1, 3, dtype=vertices.dtype, device=vertices.device)
    total = total.index_add(0, flat, cross.repeat_interleave(3, dim=0))
    return functional.normalize(total, dim=-1, eps=1e-20).index_select(0, flat)
