# SPDX-License-Identifier: GPL-3.0-or-later
"""Triangulation of polygons, convex or not: ear clipping (Meisters 1975) in the polygon's own plane."""

from __future__ import annotations

import numpy as np

from .topology import FloatArray, IntArray


def triangulate(vertices: FloatArray, corners: IntArray, sizes: IntArray) -> tuple[IntArray, IntArray]:
    """Triangles of polygons: (n - 2) each, in the polygons' order and winding.

    vertices (V, 3) float64; corners (C,) vertex numbers of one polygon after another; sizes (P,) corners of each, at
    least 3. Returns triangles (T, 3) as positions in `corners`, and the polygon (T,) of each. A polygon that is not
    planar is projected along its Newell normal.
    """
    sizes = np.asarray(sizes, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    polygon = np.repeat(np.arange(len(sizes)), np.maximum(sizes - 2, 0))
    first = np.cumsum(np.maximum(sizes - 2, 0)) - np.maximum(sizes - 2, 0)
    triangles = np.empty((len(polygon), 3), dtype=np.int64)
    three = np.flatnonzero(sizes == 3)
    triangles[first[three]] = starts[three, None] + np.arange(3)
    four = np.flatnonzero(sizes == 4)
    if len(four):
        local = _split_quads(vertices[corners[starts[four, None] + np.arange(4)]])
        triangles[first[four, None] + np.arange(2)] = starts[four, None, None] + local
    for number in np.flatnonzero(sizes > 4):
        start, size = starts[number], sizes[number]
        points = vertices[corners[start : start + size]]
        triangles[first[number] : first[number] + size - 2] = start + clip_ears(points)
    return triangles, polygon


def newell_normal(points: FloatArray) -> FloatArray:
    """Newell's normal of a closed polygon (..., n, 3): twice its projected area long, by the right-hand rule."""
    local = points - points.mean(axis=-2, keepdims=True)
    return np.cross(local, np.roll(local, -1, axis=-2)).sum(axis=-2)


def _split_quads(quads: FloatArray) -> IntArray:
    """(q, 2, 3) corners of the triangles of quads (q, 4, 3): cut at the diagonal 0-2 unless that lies outside."""
    normal = newell_normal(quads)
    a, b, c, d = (quads[:, corner] for corner in range(4))
    turned_over = [(np.cross(p - a, q - a) * normal).sum(axis=1) < 0 for p, q in ((b, c), (c, d))]
    other = turned_over[0] | turned_over[1]
    return np.where(other[:, None, None], [[1, 2, 3], [1, 3, 0]], [[0, 1, 2], [0, 2, 3]])


def clip_ears(points: FloatArray) -> IntArray:
    """(n - 2, 3) triangles of one polygon (n, 3), n > 2. Bridges to holes and repeated points are allowed.

    A polygon without area, or what is left of one that crosses itself, becomes a fan.
    """
    flat = _project(points)
    size = len(flat)
    following = np.roll(flat, -1, axis=0)
    turns = _cross(flat - np.roll(flat, 1, axis=0), following - flat)
    whole_turn = np.abs(_angles(flat)).sum() < 2.0 * np.pi + 1e-6
    if (turns >= 0).all() and whole_turn:  # convex
        return np.stack([np.zeros(size - 2, dtype=np.int64), np.arange(1, size - 1), np.arange(2, size)], axis=1)
    left = list(range(size))
    triangles: list[tuple[int, ...]] = []
    while len(left) > 3:
        ear = _find_ear(flat[left])
        triangles.append((left[ear - 1], left[ear], left[(ear + 1) % len(left)]))
        del left[ear]
    triangles.append(tuple(left))
    return np.array(triangles, dtype=np.int64)


def _find_ear(ring: FloatArray) -> int:
    """Position in a ring (n, 2) of a convex corner whose triangle holds no other point; the most convex if none is."""
    before, after = np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0)
    turn = _cross(ring - before, after - ring)
    reflex = ring[turn <= 0]  # only these can lie in an ear
    for corner in np.flatnonzero(turn > 0):
        a, b, c = before[corner], ring[corner], after[corner]
        at_corner = (reflex == a).all(axis=1) | (reflex == b).all(axis=1) | (reflex == c).all(axis=1)
        others = reflex[~at_corner]
        inside = (_cross(b - a, others - a) >= 0) & (_cross(c - b, others - b) >= 0) & (_cross(a - c, others - c) >= 0)
        if not inside.any():
            return int(corner)
    flat_corners = np.flatnonzero(turn == 0)
    return int(flat_corners[0]) if len(flat_corners) else int(turn.argmax())


def _project(points: FloatArray) -> FloatArray:
    """(n, 2) coordinates in the plane across the Newell normal, counter-clockwise, about the middle, of size 1."""
    local = np.asarray(points, dtype=np.float64) - points.mean(axis=0)
    local = local / max(float(np.abs(local).max()), 1e-300)
    normal = newell_normal(local)
    length = float(np.linalg.norm(normal))
    if length == 0.0:
        return np.zeros((len(points), 2))
    normal = normal / length
    axis = np.eye(3)[np.abs(normal).argmin()]
    right = np.cross(axis, normal)
    right = right / np.linalg.norm(right)
    return np.stack([local @ right, local @ np.cross(normal, right)], axis=1)


def _angles(flat: FloatArray) -> FloatArray:
    """Exterior angles (n,) in radians; they sum to 2 pi around a polygon that winds once."""
    before, after = flat - np.roll(flat, 1, axis=0), np.roll(flat, -1, axis=0) - flat
    return np.arctan2(_cross(before, after), (before * after).sum(axis=-1))


def _cross(a: FloatArray, b: FloatArray) -> FloatArray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
