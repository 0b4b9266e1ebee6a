# SPDX-License-Identifier: GPL-3.0-or-later
"""Even triangles: incremental isotropic remeshing (Botsch and Kobbelt 2004) that keeps sharp edges and borders.

Edges longer than 4/3 of the target are split, those shorter than 4/5 collapsed, edges flipped towards six neighbors a
vertex, and vertices moved to the middle of their neighbors and back to the dense surface. Each pass changes a set of
edges that do not touch each other, so that it works on whole arrays.
"""

from __future__ import annotations

import igl
import numpy as np

from ..geometry.clean import drop_bad_faces
from ..geometry.decimate import is_sound
from ..geometry.topology import (
    FloatArray,
    IntArray,
    Surface,
    degenerate_faces,
    drop_unused_vertices,
    face_areas,
    face_cross,
    half_edges,
    paired_half_edges,
    vertex_normals,
)
from .edge_passes import Patch, collapse_short, flip_edges, split_long
from .surface_search import SurfaceSearch

ROUNDS = 8  # of the four passes
CORRECTIONS = 5  # times that the target length is corrected for the budget
SLACK = 0.01  # by which a correction goes farther than the ratio says
FILL = 0.97  # of the budget that the first target length aims at
NEAR_CREASE = 0.1  # target lengths within which an edge's middle must lie from a sharp edge of the dense mesh


def even_triangles(
    surface: Surface, search: SurfaceSearch, dense: Surface, triangles: int, crease_deg: float
) -> Surface:
    """A surface of about `triangles` faces of equal size on the dense one; `surface` itself where that fails.

    surface: within the budget, near `dense`, which `search` searches. Edges of the dense mesh of `crease_deg` or more
    keep their place. It fails for surfaces with edges of more than two faces, and where the result would not be closed
    although `surface` is.
    """
    _, edge = half_edges(surface.faces)
    if (np.bincount(edge) > 2).any():
        return surface
    length = float(np.sqrt(4.0 * face_areas(dense).sum() / (np.sqrt(3.0) * FILL * triangles)))
    creases = sharp_edges(dense, crease_deg)
    patch = Patch(surface.vertices.copy(), surface.faces.copy(), _features(surface, dense, creases, crease_deg, length))
    rounds = ROUNDS
    for _ in range(CORRECTIONS):
        for _ in range(rounds):
            patch = split_long(patch, 4.0 / 3.0 * length)
            patch = collapse_short(patch, 4.0 / 5.0 * length, 4.0 / 3.0 * length)
            patch = flip_edges(patch)
            patch = _relaxed(patch, search, dense, creases)
        if len(patch.faces) <= triangles:
            break
        length *= float(np.sqrt(len(patch.faces) / (FILL * triangles))) + SLACK
        rounds = 3
    found = drop_unused_vertices(Surface(patch.vertices, patch.faces))
    if (
        (is_sound(surface) and not is_sound(found))
        or degenerate_faces(found).any()
        or len(drop_bad_faces(found).faces) != len(found.faces)
    ):
        return surface
    return found


def sharp_edges(surface: Surface, crease_deg: float) -> IntArray:
    """(K, 2) vertices of the edges that one face has, or two faces whose normals differ by `crease_deg` or more."""
    directed, edge = half_edges(surface.faces)
    first, second = paired_half_edges(surface.faces)
    cross = face_cross(surface)
    unit = cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-300)
    count = len(surface.faces)
    sharp = (unit[first % count] * unit[second % count]).sum(axis=1) <= np.cos(np.radians(crease_deg))
    lone = np.bincount(edge)[edge] == 1
    return np.sort(np.concatenate([directed[first[sharp]], directed[lone]]), axis=1)


def _features(surface: Surface, dense: Surface, creases: IntArray, crease_deg: float, length: float) -> IntArray:
    """(K, 2) sharp edges of a coarse surface that lie along sharp edges of the dense one."""
    found = sharp_edges(surface, crease_deg)
    if not len(found) or not len(creases):
        return np.zeros((0, 2), dtype=np.int64)
    middles = surface.vertices[found].mean(axis=1)
    distance = np.linalg.norm(_on_segments(middles, dense, creases) - middles, axis=1)
    return found[distance <= NEAR_CREASE * length]


def _on_segments(points: FloatArray, dense: Surface, creases: IntArray) -> FloatArray:
    """The nearest points (m, 3) of segments of the dense mesh."""
    tree = igl.AABB()
    vertices = np.ascontiguousarray(dense.vertices, dtype=np.float64)
    segments = np.ascontiguousarray(creases, dtype=np.int64)
    tree.init(vertices, segments)
    return np.asarray(tree.squared_distance(vertices, segments, np.ascontiguousarray(points))[2])


def _relaxed(patch: Patch, search: SurfaceSearch, dense: Surface, creases: IntArray) -> Patch:
    """Vertices moved to the middle of their neighbors: across the normal, along a sharp edge, or not at a corner."""
    surface = Surface(patch.vertices, patch.faces)
    count = len(patch.vertices)
    directed, _ = half_edges(patch.faces)
    both = np.concatenate([directed, directed[:, ::-1]])
    ends = np.bincount(patch.features.reshape(-1), minlength=count)
    middle = _means(both, patch.vertices)
    normals = vertex_normals(surface)
    step = middle - patch.vertices
    step -= (step * normals).sum(axis=1, keepdims=True) * normals
    moved = patch.vertices + np.where((ends == 0)[:, None], step, 0.0)
    free = np.flatnonzero((ends == 0) & (np.bincount(patch.faces.reshape(-1), minlength=count) > 0))
    moved[free] = search.points(search.nearest(moved[free]))
    line = np.flatnonzero(ends == 2)
    if len(line) and len(creases):
        pairs = np.concatenate([patch.features, patch.features[:, ::-1]])
        along = 0.5 * (patch.vertices + _means(pairs, patch.vertices))
        moved[line] = _on_segments(along[line], dense, creases)
    before, after = face_cross(surface), face_cross(Surface(moved, patch.faces))
    turned = (before * after).sum(axis=1) <= 0.2 * np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    moved[patch.faces[turned].reshape(-1)] = patch.vertices[patch.faces[turned].reshape(-1)]
    return Patch(moved, patch.faces, patch.features)


def _means(pairs: IntArray, values: FloatArray) -> FloatArray:
    """(V, k) mean of the values at the second of each pair, by the first; unchanged for a vertex without pairs."""
    count = len(values)
    number = np.bincount(pairs[:, 0], minlength=count)
    sums = np.stack([np.bincount(pairs[:, 0], values[pairs[:, 1], axis], count) for axis in range(3)], axis=1)
    return np.where(number[:, None] > 0, sums / np.maximum(number, 1)[:, None], values)
