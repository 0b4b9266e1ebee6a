# SPDX-License-Identifier: GPL-3.0-or-later
"""Closed primitive solids as arrays: surfaces of revolution, boxes, ellipsoids, tubes, extruded outlines.

All return (vertices (V, 3) float64, faces: list of vertex-index tuples, outward counter-clockwise).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

Solid = tuple[np.ndarray, list[tuple[int, ...]]]


def lathe(profile: Sequence[tuple[float, float]], segments: int = 28) -> Solid:
    """Revolve a profile of (radius, z) points, lowest outside point first, around Z; radius 0 ends close it."""
    angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    vertices: list[np.ndarray] = []
    rings: list[list[int]] = []
    for radius, z in profile:
        if radius < 1e-6:
            rings.append([len(vertices)] * segments)
            vertices.append(np.array([0.0, 0.0, z]))
        else:
            rings.append(list(range(len(vertices), len(vertices) + segments)))
            vertices.extend(np.array([radius * np.cos(a), radius * np.sin(a), z]) for a in angles)
    faces: list[tuple[int, ...]] = []
    for low, high in itertools.pairwise(rings):
        for i in range(segments):
            j = (i + 1) % segments
            corners = [low[i], low[j], high[j], high[i]]
            unique = tuple(dict.fromkeys(corners))
            if len(unique) >= 3:
                faces.append(unique)
    if len(set(rings[0])) > 1:
        faces.append(tuple(reversed(rings[0])))
    if len(set(rings[-1])) > 1:
        faces.append(tuple(rings[-1]))
    return np.array(vertices), faces


def box(size: Sequence[float], center: Sequence[float] | np.ndarray = (0, 0, 0), bevel: float = 0.0) -> Solid:
    """Axis-aligned box; `bevel` chamfers its vertical edges."""
    x, y, z = (0.5 * s for s in size)
    b = min(bevel, 0.9 * x, 0.9 * y)
    if b > 0:
        outline = [
            (-x + b, -y),
            (x - b, -y),
            (x, -y + b),
            (x, y - b),
            (x - b, y),
            (-x + b, y),
            (-x, y - b),
            (-x, -y + b),
        ]
    else:
        outline = [(-x, -y), (x, -y), (x, y), (-x, y)]
    return move(prism(outline, -z, z), center)


def prism(outline: Sequence[tuple[float, float]], low: float, high: float) -> Solid:
    """Extrude a counter-clockwise convex (x, y) outline from z = low to z = high."""
    n = len(outline)
    vertices = np.array([(px, py, low) for px, py in outline] + [(px, py, high) for px, py in outline])
    faces: list[tuple[int, ...]] = [tuple(reversed(range(n))), tuple(range(n, 2 * n))]
    faces += [(i, (i + 1) % n, n + (i + 1) % n, n + i) for i in range(n)]
    return vertices, faces


def ellipsoid(radii: Sequence[float], center: Sequence[float] | np.ndarray = (0, 0, 0), segments: int = 24) -> Solid:
    """Ellipsoid with semi-axes `radii`."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, segments // 2 + 1)
    profile = [
        (max(0.0, float(np.cos(a))) if 0 < i < len(angles) - 1 else 0.0, float(np.sin(a))) for i, a in enumerate(angles)
    ]
    vertices, faces = lathe(profile, segments)
    return vertices * np.asarray(radii, float) + np.asarray(center, float), faces


def tube(
    path: Sequence[Sequence[float]], radius: float | Sequence[float], segments: int = 14, closed: bool = False
) -> Solid:
    """Sweep a circle along a polyline; a sequence of radii tapers it; `closed` joins its ends."""
    points = np.asarray(path, float)
    n = len(points)
    radii = np.broadcast_to(np.asarray(radius, float), (n,))
    tangents = np.roll(points, -1, 0) - np.roll(points, 1, 0) if closed else np.gradient(points, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    reference = np.eye(3)[int(np.argmin(np.abs(tangents).sum(0)))]
    angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    rings = []
    for point, tangent, r in zip(points, tangents, radii, strict=True):
        side = np.cross(tangent, reference)
        side /= np.linalg.norm(side)
        up = np.cross(side, tangent)
        rings.append(point + r * (np.cos(angles)[:, None] * side - np.sin(angles)[:, None] * up))
    vertices = np.concatenate(rings)
    faces: list[tuple[int, ...]] = []
    for i in range(n if closed else n - 1):
        a, b = i * segments, ((i + 1) % n) * segments
        for k in range(segments):
            m = (k + 1) % segments
            faces.append((a + k, a + m, b + m, b + k))
    if not closed:
        faces.append(tuple(reversed(range(segments))))
        faces.append(tuple(range((n - 1) * segments, n * segments)))
    return vertices, faces


def rod(
    start: Sequence[float], end: Sequence[float], radius: float, tip_radius: float | None = None, segments: int = 16
) -> Solid:
    """Straight cylinder or truncated cone between two points."""
    return tube([start, end], [radius, radius if tip_radius is None else tip_radius], segments)


def ring(
    major: float, minor: float, axis: str = "y", center: Sequence[float] | np.ndarray = (0, 0, 0), segments: int = 36
) -> Solid:
    """Torus whose hole looks along `axis` ("y" or "z")."""
    angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    c, s, zero = major * np.cos(angles), major * np.sin(angles), np.zeros(segments)
    path = np.stack([c, zero, s] if axis == "y" else [c, s, zero], axis=1)
    return move(tube(path, minor, 18, closed=True), center)


def move(solid: Solid, offset: Sequence[float] | np.ndarray) -> Solid:
    """The solid shifted by `offset`."""
    return solid[0] + np.asarray(offset, float), solid[1]


def turn(solid: Solid, axis: str, degrees: float) -> Solid:
    """The solid rotated about a coordinate axis through the origin, right-handed."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = {
        "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }[axis]
    return solid[0] @ np.asarray(matrix).T, solid[1]
