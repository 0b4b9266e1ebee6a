# SPDX-License-Identifier: GPL-3.0-or-later
"""Bilateral normal filtering flattens noisy walls and keeps right angles, volume and thin ends."""

from __future__ import annotations

import numpy as np
import pytest

from dreamwright.backend.geometry.clean import merge_vertices
from dreamwright.backend.geometry.denoise import LARGEST_MOVE, face_neighbors, filter_normals, flattened
from dreamwright.backend.geometry.topology import (
    Surface,
    face_areas,
    face_cross,
    is_manifold,
    signed_volume,
)

CELLS = 16  # squares along each edge of the cube


def cube(cells: int = CELLS) -> Surface:
    """The cube [0, cells]^3 with walls of unit squares, each cut into two triangles."""
    u, v = (axis.reshape(-1) for axis in np.meshgrid(np.arange(cells), np.arange(cells), indexing="ij"))
    corners = [np.stack([u + i, v + j], axis=1) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
    vertices, faces, base = [], [], 0
    for axis in range(3):
        for side in (0, cells):
            order = corners if side else corners[::-1]  # counter-clockwise seen from outside
            squares = np.stack(order, axis=1).reshape(-1, 2)
            wall = np.empty((len(squares), 3))
            wall[:, axis], wall[:, (axis + 1) % 3], wall[:, (axis + 2) % 3] = side, squares[:, 0], squares[:, 1]
            square = base + np.arange(4 * len(u)).reshape(-1, 4)
            faces += [square[:, [0, 1, 2]], square[:, [0, 2, 3]]]
            vertices.append(wall)
            base += len(wall)
    return merge_vertices(Surface(np.concatenate(vertices).astype(np.float64), np.concatenate(faces)))


def unit_normals(surface: Surface) -> np.ndarray:
    cross = face_cross(surface)
    return cross / np.linalg.norm(cross, axis=1, keepdims=True)


def tilt_deg(surface: Surface, walls: np.ndarray) -> np.ndarray:
    """Angle (F,) between each face and the wall of the cube that it belongs to."""
    return np.degrees(np.arccos(np.clip((unit_normals(surface) * walls).sum(axis=1), -1.0, 1.0)))


def noisy(surface: Surface, size: float) -> Surface:
    noise = size * np.random.default_rng(0).normal(size=surface.vertices.shape)
    return Surface(surface.vertices + noise, surface.faces)


def test_faces_of_a_tetrahedron_neighbor_all_others() -> None:
    first, second = face_neighbors(np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]]))
    pairs = sorted(zip(first.tolist(), second.tolist(), strict=True))
    assert pairs == [(i, j) for i in range(4) for j in range(4) if i != j]


def test_noisy_walls_get_flat_and_edges_keep_their_right_angle() -> None:
    exact = cube()
    assert is_manifold(exact.faces) and signed_volume(exact) == pytest.approx(CELLS**3)
    walls = unit_normals(exact)
    rough = noisy(exact, 0.1)
    flat = flattened(rough, 10)
    before, after = tilt_deg(rough, walls), tilt_deg(flat, walls)
    # A face of three vertices that each err by 0.1 edges tilts by about 0.1 sqrt(2) in both directions: 11 degrees.
    # One average over about 12 neighbors of like normal divides it by sqrt(13) = 3.6; ten leave less.
    assert before.mean() > 9 and after.mean() < before.mean() / 3.6
    # The faces at edges and corners, 23% of all, turn to their own wall too and not to the bisector at 45 degrees.
    at_edge = (np.isclose(exact.vertices[exact.faces] % CELLS, 0).sum(axis=2) >= 2).any(axis=1)
    assert 0.2 < at_edge.mean() < 0.3 and after[at_edge].mean() < before.mean() / 2


def test_exact_cube_is_unchanged() -> None:
    exact = cube()
    # Across an edge |n_i - n_j|^2 = 2 has the weight exp(-1 / 0.35^2) = 2.8e-4, and a face at an edge has at most nine
    # such neighbors in its wall's 13: one round tilts it by 2e-4, ten by at most 2e-3 edges.
    assert np.abs(flattened(exact, 10).vertices - exact.vertices).max() < 2e-3


def test_filtered_normals_are_unit() -> None:
    normals = filter_normals(noisy(cube(6), 0.1), 3)
    assert np.linalg.norm(normals, axis=1) == pytest.approx(np.ones(len(normals)), abs=1e-12)


def test_volume_stays_and_no_vertex_leaves_its_neighborhood() -> None:
    rough = noisy(cube(6), 0.2)
    flat = flattened(rough, 50)
    # Sums over 432 faces in float64.
    assert signed_volume(flat) == pytest.approx(signed_volume(rough), rel=1e-11)
    edges = rough.vertices[rough.faces] - rough.vertices[np.roll(rough.faces, 1, axis=1)]
    longest = LARGEST_MOVE * np.linalg.norm(edges, axis=2).mean()
    # Before it is scaled to its volume, which moves a corner by less than a tenth of its 5.2 from the middle.
    assert np.linalg.norm(flat.vertices - rough.vertices, axis=1).max() < longest + 0.52
    assert face_areas(flat).min() > 0


def test_zero_rounds_change_nothing() -> None:
    surface = cube(4)
    assert flattened(surface, 0) is surface
