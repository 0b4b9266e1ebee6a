# SPDX-License-Identifier: GPL-3.0-or-later
"""Triangle surfaces: edges, holes, orientation, components, volume, normals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.integer]

DEGENERATE_AREA = 1e-12  # of the bounding box's squared diagonal: below it a face has no usable normal in float32


@dataclass(frozen=True)
class Surface:
    """Indexed triangles: vertices (V, 3) float64 and faces (F, 3) int64, counter-clockwise seen from outside."""

    vertices: FloatArray
    faces: IntArray


def face_cross(surface: Surface) -> FloatArray:
    """(b - a) x (c - a) of each face: (F, 3), twice the area long, pointing outwards."""
    a, b, c = (surface.vertices[surface.faces[:, corner]] for corner in range(3))
    return np.cross(b - a, c - a)


def face_areas(surface: Surface) -> FloatArray:
    """|(b - a) x (c - a)| / 2 of each face: (F,), in squared units of the vertices."""
    return 0.5 * np.linalg.norm(face_cross(surface), axis=1)


def face_volumes(surface: Surface) -> FloatArray:
    """Signed volume a . (b x c) / 6 under each face, seen from the surface's middle: (F,); they sum to the volume."""
    if not len(surface.faces):
        return np.zeros(0)
    middle = surface.vertices.mean(axis=0)
    a, b, c = (surface.vertices[surface.faces[:, corner]] - middle for corner in range(3))
    return np.einsum("ij,ij->i", a, np.cross(b, c)) / 6.0


def signed_volume(surface: Surface) -> float:
    """Volume by the divergence theorem; positive when a closed surface is oriented outwards."""
    return float(face_volumes(surface).sum())


def vertex_normals(surface: Surface) -> FloatArray:
    """Unit area-weighted mean of the adjacent faces' normals: (V, 3); (0, 0, 1) where that mean vanishes."""
    cross = face_cross(surface)
    normals = np.zeros_like(surface.vertices, dtype=np.float64)
    for axis in range(3):
        for corner in range(3):
            normals[:, axis] += np.bincount(surface.faces[:, corner], cross[:, axis], minlength=len(normals))
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 1e-30, normals / np.maximum(length, 1e-30), np.array([0.0, 0.0, 1.0]))


def half_edges(faces: IntArray) -> tuple[IntArray, IntArray]:
    """Directed edges (3F, 2), corner by corner, and the (3F,) number of the undirected edge each one lies on."""
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    span = int(faces.max()) + 1 if len(faces) else 1
    key = directed.min(axis=1) * span + directed.max(axis=1)
    _, edge = np.unique(key, return_inverse=True)
    return directed, edge.reshape(-1)


def paired_half_edges(faces: IntArray) -> tuple[IntArray, IntArray]:
    """Numbers (P,) and (P,) of the half-edges (rows of `half_edges`) of each edge that has exactly two, by rising edge.

    Half-edge h belongs to face h % F and starts at its corner h // F.
    """
    _, edge = half_edges(faces)
    by_edge = np.argsort(edge, kind="stable")
    paired = (np.bincount(edge) == 2)[edge[by_edge]] if len(edge) else np.zeros(0, dtype=bool)
    return by_edge[paired][0::2], by_edge[paired][1::2]


def edges_of(faces: IntArray) -> IntArray:
    """Undirected edges (E, 2) of faces (F, 3), each once, sorted by their vertices; none from a vertex to itself."""
    directed, edge = half_edges(np.asarray(faces, dtype=np.int64).reshape(-1, 3))
    ends = np.zeros((int(edge.max()) + 1 if len(edge) else 0, 2), dtype=np.int64)
    ends[edge] = np.sort(directed, axis=1)
    return ends[ends[:, 0] != ends[:, 1]]


def face_pairs(faces: IntArray) -> IntArray:
    """Pairs (P, 2) of faces that share an edge which no third face has, each once."""
    first, second = paired_half_edges(np.asarray(faces, dtype=np.int64).reshape(-1, 3))
    return np.stack([first, second], axis=1) % max(len(faces), 1)


def is_watertight(faces: IntArray) -> bool:
    """True when every edge has exactly two faces that run through it in opposite directions."""
    if not len(faces):
        return False
    directed, edge = half_edges(faces)
    sign = np.where(directed[:, 0] < directed[:, 1], 1, -1)
    return bool((np.bincount(edge) == 2).all() and (np.bincount(edge, sign) == 0).all())


def corner_fans(faces: IntArray) -> IntArray:
    """Number the fans of faces around vertices: (F, 3), equal numbers where corners meet across edges of two faces.

    On a manifold each vertex has one fan; a pinched vertex, where two sheets touch, has more.
    """
    directed, _ = half_edges(faces)
    first, second = paired_half_edges(faces)
    return joined_corners(directed, first, second)


def smooth_groups(vertices: FloatArray, faces: IntArray, crease_deg: float) -> IntArray:
    """Number the smooth group of each corner: (F, 3), as `corner_fans`, but not across creases of `crease_deg` or more.

    With 180 a vertex has one normal for each fan of faces, with 0 every face has its own.
    """
    directed, _ = half_edges(faces)
    first, second = paired_half_edges(faces)
    cross = face_cross(Surface(np.asarray(vertices, dtype=np.float64), faces))
    unit = cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-300)
    cosine = (unit[first % len(faces)] * unit[second % len(faces)]).sum(axis=1)
    flat = cosine > np.cos(np.radians(crease_deg))
    return joined_corners(directed, first[flat], second[flat])


def joined_corners(directed: IntArray, first: IntArray, second: IntArray) -> IntArray:
    """(F, 3) numbers of corners, equal where they meet across the given pairs of half-edges."""
    count = len(directed) // 3
    face = np.tile(np.arange(count), 3)
    start, end = np.repeat(np.arange(3), count), np.repeat(np.array([1, 2, 0]), count)
    # The two faces of an edge usually run through it in opposite directions, but clean-up also sees flipped ones.
    opposite = directed[first, 0] == directed[second, 1]
    at_start, at_end = 3 * face + start, 3 * face + end  # corner numbers of each half-edge's two ends
    rows = np.concatenate([at_start[first], at_end[first]])
    columns = np.concatenate(
        [
            np.where(opposite, at_end[second], at_start[second]),
            np.where(opposite, at_start[second], at_end[second]),
        ]
    )
    graph = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(3 * count, 3 * count))
    return connected_components(graph, directed=False)[1].reshape(count, 3)


def is_manifold(faces: IntArray) -> bool:
    """True when the faces are watertight and no vertex is pinched: a closed two-manifold."""
    if not is_watertight(faces):
        return False
    return int(corner_fans(faces).max()) + 1 == len(np.unique(faces))


def euler_number(faces: IntArray) -> int:
    """V - E + F over the vertices in use: 2 for a sphere, 0 for a torus, 2 less with each further handle."""
    if not len(faces):
        return 0
    return len(np.unique(faces)) - (int(half_edges(faces)[1].max()) + 1) + len(faces)


def face_components(faces: IntArray) -> IntArray:
    """Number of the vertex-connected part that each face belongs to: (F,), from 0."""
    if not len(faces):
        return np.zeros(0, dtype=np.int64)
    count = int(faces.max()) + 1
    rows, columns = np.concatenate([faces[:, 0], faces[:, 1]]), np.concatenate([faces[:, 1], faces[:, 2]])
    graph = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(count, count))
    _, parts = np.unique(connected_components(graph, directed=False)[1][faces[:, 0]], return_inverse=True)
    return parts.reshape(-1)


def degenerate_faces(surface: Surface) -> NDArray[np.bool_]:
    """(F,) True where a face repeats a vertex or has no area next to the surface's size."""
    f = surface.faces
    repeated = (f[:, 0] == f[:, 1]) | (f[:, 1] == f[:, 2]) | (f[:, 2] == f[:, 0])
    return repeated | (face_areas(surface) <= DEGENERATE_AREA * diagonal(surface) ** 2)


def diagonal(surface: Surface) -> float:
    """Length of the bounding box's diagonal."""
    return float(np.linalg.norm(np.ptp(surface.vertices, axis=0))) if len(surface.vertices) else 0.0


def drop_unused_vertices(surface: Surface) -> Surface:
    """The same faces with only the vertices that they use, in their old order."""
    used, faces = np.unique(surface.faces, return_inverse=True)
    return Surface(surface.vertices[used], faces.reshape(surface.faces.shape).astype(np.int64))
