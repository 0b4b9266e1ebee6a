# SPDX-License-Identifier: GPL-3.0-or-later
"""Dihedral angles and normal errors of shapes whose values are known."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from dreamwright.backend.evaluation.silhouettes import Solid
from dreamwright.backend.evaluation.surface_normals import (
    TARGETS,
    mean_dihedral_deg,
    normal_error_deg,
    oriented_points,
)


def solid_of(mesh: trimesh.Trimesh) -> Solid:
    return Solid(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64))


def points_of(solid: Solid):
    return oriented_points(solid, TARGETS, np.random.default_rng(3))


def test_cube_has_right_angles_on_its_edges_and_none_on_its_diagonals() -> None:
    """Twelve edges of length 1 and 90 degrees, six diagonals of length sqrt(2) and 0 degrees."""
    expected = 12 * 90.0 / (12 + 6 * np.sqrt(2.0))
    cube = solid_of(trimesh.creation.box())
    assert mean_dihedral_deg(cube) == pytest.approx(expected, rel=1e-12)  # 18 terms in float64
    corners = Solid(cube.vertices[cube.faces].reshape(-1, 3), np.arange(36).reshape(-1, 3))
    assert mean_dihedral_deg(corners) == pytest.approx(expected, rel=1e-12)  # vertices are joined by position


def test_icosahedron_and_its_refinements() -> None:
    """138.19 degrees between the faces of an icosahedron; on a sphere, edges of length h bend by about h / r."""
    solid_angle = np.degrees(np.arccos(-np.sqrt(5.0) / 3.0))
    angles = [mean_dihedral_deg(solid_of(trimesh.creation.icosphere(n))) for n in range(5)]
    assert angles[0] == pytest.approx(180.0 - solid_angle, rel=1e-12)
    # Each subdivision halves the edges; from the second on, second-order terms are below 4% of the angle.
    np.testing.assert_allclose(angles[2] / np.array(angles[3:]), [2.0, 4.0], rtol=0.04)


def test_flat_grid_has_no_angle_and_its_border_does_not_count() -> None:
    x, y = np.meshgrid(np.arange(5.0), np.arange(4.0), indexing="ij")
    vertices = np.stack([x, y, 2 * x + 3 * y], -1).reshape(-1, 3)
    quads = [(4 * i + j, 4 * i + 4 + j, 4 * i + 5 + j, 4 * i + 1 + j) for i in range(4) for j in range(3)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    assert mean_dihedral_deg(Solid(vertices, faces)) < 1e-6  # rounding of unit normals, 1e-16, in degrees


def test_a_fold_counts_by_its_length() -> None:
    """Two unit squares that meet at 30 degrees: one fold of length 1, two flat diagonals of length sqrt(2)."""
    c, s = np.cos(np.radians(30.0)), np.sin(np.radians(30.0))
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [1 + c, 0, s], [1 + c, 1, s]], float)
    faces = np.array([[0, 1, 2], [0, 2, 3], [1, 4, 5], [1, 5, 2]])
    assert mean_dihedral_deg(Solid(vertices, faces)) == pytest.approx(30.0 / (1 + 2 * np.sqrt(2.0)), rel=1e-9)


def test_normals_of_one_sphere_agree_and_those_of_another_shape_do_not() -> None:
    sphere = solid_of(trimesh.creation.icosphere(4, radius=0.5))
    # Nearest of 40,000 points on an area of pi: 0.0044 aside, 0.5 degrees on a radius of 0.5; faces of 2,562 vertices
    # deviate by up to 1.3 degrees from the sphere's normal, neighbors by twice that.
    assert normal_error_deg(sphere, points_of(sphere)) < 2.6
    cube = solid_of(trimesh.creation.box(extents=(0.8, 0.8, 0.8)))
    # Rays from the middle of a cube's face to points on it are on average 31 to 32 degrees apart from its normal.
    assert normal_error_deg(cube, points_of(sphere)) > 20.0


def test_a_tilted_plane_is_off_by_its_tilt() -> None:
    square = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    c, s = np.cos(np.radians(10.0)), np.sin(np.radians(10.0))
    tilted = square @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]).T
    error = normal_error_deg(Solid(tilted, faces), points_of(Solid(square, faces)))
    assert error == pytest.approx(10.0, rel=1e-9)  # the same at every point
