# SPDX-License-Identifier: GPL-3.0-or-later
"""Normals of a mesh's corners, differentiable with respect to its vertices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def face_cross(vertices: Tensor, faces: Tensor) -> Tensor:
    """`topology.face_cross` of tensors, differentiable: (b - a) x (c - a) of each face, (F, 3), twice its area long."""
    a, b, c = (vertices.index_select(0, faces[:, corner]) for corner in range(3))
    return torch.linalg.cross(b - a, c - a)


def corner_normals(vertices: Tensor, faces: Tensor, groups: Tensor) -> Tensor:
    """Unit normals (F * 3, 3) of the corners: the area-weighted mean over each group of `topology.smooth_groups`."""
    cross = face_cross(vertices, faces)
    flat = groups.reshape(-1)
    total = torch.zeros(int(flat.max()) + 1, 3, dtype=vertices.dtype, device=vertices.device)
    total = total.index_add(0, flat, cross.repeat_interleave(3, dim=0))
    return functional.normalize(total, dim=-1, eps=1e-20).index_select(0, flat)
