# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes with known shapes for tests: balls, a cube, a flat grid, a tetrahedron."""

from __future__ import annotations

import numpy as np
import trimesh


def icosphere(subdivisions: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A ball: 20 * 4^subdivisions faces, counter-clockwise from outside."""
    ball = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return np.array(ball.vertices, np.float64), np.array(ball.faces, np.int64)


def two_balls(subdivisions: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A red ball of radius 0.35 and a green one of 0.18 in front of it (-Y), with smoothly varying colors."""
    big, faces = icosphere(subdivisions, 0.35)
    small, _ = icosphere(subdivisions, 0.18)
    small = small + np.array([0.12, -0.5, 0.06])
    colors = np.concatenate([[0.8, 0.2, 0.1] + 0.3 * big, [0.1, 0.7, 0.3] + 0.3 * (small - [0.12, -0.5, 0.06])])
    return np.concatenate([big, small]), np.concatenate([faces, faces + len(big)]), colors.clip(0, 1)


def cube(size: float) -> tuple[np.ndarray, np.ndarray]:
    """Twelve triangles about the origin."""
    box = trimesh.creation.box((size, size, size))
    return np.array(box.vertices, np.float64), np.array(box.faces, np.int64)


def grid(cells: int, size: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A flat square of 2 cells^2 triangles at z = 0, its middle at the origin."""
    line = np.linspace(-0.5 * size, 0.5 * size, cells + 1)
    x, y = np.meshgrid(line, line, indexing="ij")
    corner = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).reshape(-1)
    a, b, c, d = corner, corner + cells + 1, corner + cells + 2, corner + 1
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1), faces


def tetrahedron() -> tuple[np.ndarray, np.ndarray]:
    """A regular tetrahedron with vertices at alternate corners of the cube of side 2: edges of sqrt(8)."""
    return np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]), np.array(
        [[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]]
    )
