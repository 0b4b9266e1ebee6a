# SPDX-License-Identifier: GPL-3.0-or-later
"""Flatten a noisy surface and keep its edges: bilateral filtering of face normals (Zheng, Fu, Au and Tai 2011)."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix

from .clean import with_volume
from .topology import FloatArray, IntArray, Surface, degenerate_faces, edges_of, face_areas, face_cross, signed_volume

NORMAL_WIDTH = 0.35  # of the Gaussian on |n_i - n_j|: 20 degrees are noise, the 1.41 of a right angle is an edge
LARGEST_MOVE = 1.0  # mean edges that a vertex may move, so that ends of thin parts stay


def face_neighbors(faces: IntArray) -> tuple[IntArray, IntArray]:
    """Ordered pairs of different faces that share a vertex: (P,) and (P,), each pair in both orders."""
    count = len(faces)
    at = (np.repeat(np.arange(count), 3), np.asarray(faces).reshape(-1))
    touches = coo_matrix((np.ones(3 * count, dtype=np.int8), at), shape=(count, int(faces.max()) + 1)).tocsr()
    pairs = (touches @ touches.T).tocoo()
    different = pairs.row != pairs.col
    return pairs.row[different].astype(np.int64), pairs.col[different].astype(np.int64)


def filter_normals(surface: Surface, rounds: int) -> FloatArray:
    """Unit normals of the faces after `rounds` of averaging over neighbors of similar normal: (F, 3).

    The weight of a neighbor is its area, times a Gaussian of the distance of the two middles (the width is the mean
    one), times a Gaussian of the difference of the two normals.
    """
    first, second = face_neighbors(surface.faces)
    area = face_areas(surface)
    normals = face_cross(surface) / np.maximum(2.0 * area, 1e-300)[:, None]
    middle = surface.vertices[surface.faces].mean(axis=1)
    distance = np.linalg.norm(middle[first] - middle[second], axis=1)
    near = area[second] * np.exp(-0.5 * (distance / max(float(distance.mean()), 1e-300)) ** 2)
    for _ in range(rounds):
        difference = ((normals[first] - normals[second]) ** 2).sum(axis=1)
        weight = near * np.exp(-0.5 * difference / NORMAL_WIDTH**2)
        total = area[:, None] * normals
        for axis in range(3):
            total[:, axis] += np.bincount(first, weight * normals[second, axis], minlength=len(area))
        normals = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-300)
    return normals


def fit_vertices(surface: Surface, normals: FloatArray, rounds: int) -> Surface:
    """Move the vertices so that faces turn to `normals` (F, 3): Sun, Rosin, Martin and Langbein 2007.

    In each round a vertex moves by the area-weighted mean of its faces' n (n . (middle - vertex)), in all by at most
    `LARGEST_MOVE` mean edges.
    """
    faces = surface.faces
    corner = faces.reshape(-1)
    weight = np.repeat(face_areas(surface), 3)
    total = np.maximum(np.bincount(corner, weight, minlength=len(surface.vertices)), 1e-300)
    normal = np.repeat(normals, 3, axis=0)
    ends = surface.vertices[edges_of(faces)]
    limit = LARGEST_MOVE * float(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).mean())
    vertices = np.asarray(surface.vertices, dtype=np.float64)
    for _ in range(rounds):
        middle = np.repeat(vertices[faces].mean(axis=1), 3, axis=0)
        along = weight * ((middle - vertices[corner]) * normal).sum(axis=1)
        step = [np.bincount(corner, along * normal[:, axis], minlength=len(vertices)) for axis in range(3)]
        vertices = vertices + np.stack(step, axis=1) / total[:, None]
        moved = vertices - surface.vertices
        length = np.linalg.norm(moved, axis=1, keepdims=True)
        vertices = surface.vertices + moved * np.minimum(1.0, limit / np.maximum(length, 1e-300))
    return Surface(vertices, faces)


def flattened(surface: Surface, rounds: int) -> Surface:
    """Bilateral normal filtering and vertex fitting, `rounds` of each, at the same volume; 0 changes nothing.

    The surface comes back as it was where filtering folds a sliver flat: lumps are the lesser fault.
    """
    if rounds <= 0 or not len(surface.faces):
        return surface
    flat = fit_vertices(surface, filter_normals(surface, rounds), rounds)
    flat = with_volume(flat, signed_volume(surface))
    return surface if degenerate_faces(flat).sum() > degenerate_faces(surface).sum() else flat
