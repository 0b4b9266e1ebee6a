# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a moved mesh a surface: Laplacians, edge lengths, normals, folds. Sparse where they are matrices."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix
from torch import Tensor
from torch.nn import functional

from ..geometry.topology import FloatArray, IntArray, edges_of
from ..mesh_rendering.normals import face_cross


def uniform_laplacian(faces: IntArray, count: int) -> csr_matrix:
    """D - A, (V, V): the number of a vertex's neighbors on the diagonal, -1 for each neighbor."""
    edges = edges_of(faces)
    rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
    adjacency = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count)).tocsr()
    return (_diagonal(np.asarray(adjacency.sum(axis=1)).ravel()) - adjacency).tocsr()


def cotangent_laplacian(vertices: FloatArray, faces: IntArray) -> tuple[csr_matrix, FloatArray]:
    """(C, area): C (V, V) with -(cot a + cot b) / 2 for an edge opposite the angles a and b and rows that sum to zero,
    and the third (V,) of the areas of each vertex's faces, so that C v / area is twice the mean curvature times normal.
    """
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
    rows, columns, weights, area = [], [], [], np.zeros(len(vertices))
    for corner in range(3):
        here, one, other = faces[:, corner], faces[:, (corner + 1) % 3], faces[:, (corner + 2) % 3]
        first, second = vertices[one] - vertices[here], vertices[other] - vertices[here]
        twice = np.linalg.norm(np.cross(first, second), axis=1)
        half_cotangent = 0.5 * (first * second).sum(1) / np.maximum(twice, 1e-12)
        rows += [one, other]
        columns += [other, one]
        weights += [half_cotangent, half_cotangent]
        area += np.bincount(here, twice / 6.0, minlength=len(vertices))
    off = coo_matrix(
        (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), shape=(len(vertices),) * 2
    ).tocsr()
    return (_diagonal(np.asarray(off.sum(axis=1)).ravel()) - off).tocsr(), area


def _diagonal(values: FloatArray) -> csr_matrix:
    index = np.arange(len(values))
    return csr_matrix((values, (index, index)), shape=(len(values), len(values)))


def sparse_tensor(matrix: csr_matrix, like: Tensor) -> Tensor:
    """A torch sparse matrix of the type and on the device of `like`."""
    entries = matrix.tocoo()
    index = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    with torch.sparse.check_sparse_tensor_invariants(False):
        made = torch.sparse_coo_tensor(index, torch.from_numpy(entries.data), entries.shape)
        return made.to(like.device, like.dtype).coalesce()


def laplacian_energy(laplacian: Tensor, values: Tensor) -> Tensor:
    """mean_i |(L x)_i|^2 of values (V, k) under a sparse Laplacian: 0 where every value is its neighbors' mean."""
    return torch.sparse.mm(laplacian, values).square().sum() / len(values)


def edge_lengths(vertices: Tensor, edges: Tensor) -> Tensor:
    """Lengths (E,) of edges (E, 2)."""
    return (
        (vertices.index_select(0, edges[:, 0]) - vertices.index_select(0, edges[:, 1]))
        .square()
        .sum(-1)
        .clamp(min=1e-30)
        .sqrt()
    )


def edge_energy(vertices: Tensor, edges: Tensor, rest: Tensor) -> Tensor:
    """mean_e (l_e / l_e0 - 1)^2 of edges (E, 2) against their lengths at rest (E,): 0 for any rigid motion."""
    return (edge_lengths(vertices, edges) / rest - 1).square().mean()


def normal_energy(vertices: Tensor, faces: Tensor, pairs: Tensor) -> Tensor:
    """mean over neighboring faces (P, 2) of 1 - cos of the angle between their normals: 0 if flat, 2 for a fold."""
    normals = functional.normalize(face_cross(vertices, faces), dim=-1, eps=1e-20)
    return (1 - (normals.index_select(0, pairs[:, 0]) * normals.index_select(0, pairs[:, 1])).sum(-1)).mean()


def normal_difference(vertices: Tensor, faces: Tensor, pairs: Tensor) -> Tensor:
    """mean over neighboring faces (P, 2) of |n_1 - n_2| of their normals: 0 if flat, 2 for a fold.

    Linear in the angle, unlike `normal_energy`, so that it flattens lumps but prefers one sharp edge to a round one.
    Smoothed below an angle of half a degree, where |x| has no gradient.
    """
    normals = functional.normalize(face_cross(vertices, faces), dim=-1, eps=1e-20)
    difference = normals.index_select(0, pairs[:, 0]) - normals.index_select(0, pairs[:, 1])
    smallest = 0.01
    return ((difference.square().sum(-1) + smallest**2).sqrt() - smallest).mean()


def bounds_penalty(vertices: Tensor, radius: float) -> Tensor:
    """mean_i max(0, |x_i| - radius)^2 of vertices (V, 3): 0 inside the sphere that the cameras frame."""
    return (vertices.square().sum(-1).clamp(min=1e-30).sqrt() - radius).clamp(min=0).square().mean()


@torch.no_grad()
def folded_share(vertices: Tensor, faces: Tensor, before: Tensor) -> float:
    """Share of faces that point against the mean of their neighborhood, though they did not in `before` (V, 3)."""
    return float((_against(vertices, faces) & ~_against(before, faces)).float().mean())


def _against(vertices: Tensor, faces: Tensor) -> Tensor:
    cross = face_cross(vertices, faces)
    around = torch.zeros_like(vertices).index_add(0, faces.reshape(-1), cross.repeat_interleave(3, dim=0))
    mean = around.index_select(0, faces.reshape(-1)).view(-1, 3, 3).sum(1)
    return (cross * mean).sum(-1) < 0
