# SPDX-License-Identifier: GPL-3.0-or-later
"""The outside of unions of solids, and its mesh in a given number of triangles."""

from __future__ import annotations

import numpy as np
import pytest

from dreamwright.backend.evaluation.reference_surface import (
    CELL,
    ReferenceSurface,
    is_closed,
    reference_surface,
    triangulated,
    union_distance,
)
from dreamwright.backend.geometry.topology import Surface, is_watertight, signed_volume
from dreamwright.backend.starter import props, solids


def part(solid: solids.Solid) -> props.Part:
    return props.Part(solid[0], solid[1], None, False)


@pytest.fixture(scope="module")
def crossed_boxes() -> ReferenceSurface:
    """Boxes of 0.6 x 0.2 x 0.2 along X and along Y: volume 0.024 + 0.024 - 0.008."""
    return ReferenceSurface([part(solids.box((0.6, 0.2, 0.2))), part(solids.box((0.2, 0.6, 0.2)))])


def test_distance_of_a_sphere_is_exact_near_its_surface() -> None:
    ball = part(solids.ellipsoid((0.4, 0.4, 0.4), segments=64))
    distance = union_distance(triangulated([ball]))
    points = np.random.default_rng(0).normal(size=(500, 3))
    points *= np.random.default_rng(1).uniform(0.4 - CELL, 0.4 + CELL, (500, 1)) / np.linalg.norm(
        points, axis=1, keepdims=True
    )
    wanted = (0.4 - np.linalg.norm(points, axis=1)) / CELL
    # Facets of 64 segments lie up to 2 x 0.4 (1 - cos(pi / 64)) = 9.6e-4 inside: 0.11 cells. Trilinear interpolation of
    # a distance of curvature 1 / 0.4 errs by at most 3 / 8 x 2 x CELL / 0.4 = 0.017 cells.
    np.testing.assert_allclose(distance.at(points), wanted, rtol=0, atol=0.13)


def test_union_has_neither_inner_walls_nor_lost_volume(crossed_boxes: ReferenceSurface) -> None:
    mesh = crossed_boxes.mesh(2000)
    assert len(mesh.faces) <= 2000 and is_watertight(mesh.faces)
    # Marching cubes cut off edges within a cell: at most CELL^2 / 2 of 6.4 of convex edges, 2.6e-4. Decimation may take
    # as much again. An overlap that counts twice, or is lost, would be 0.008.
    assert signed_volume(Surface(mesh.vertices, mesh.faces)) == pytest.approx(0.04, abs=5.2e-4)
    axis = np.abs(crossed_boxes.outside.normals).argmax(1)
    points = crossed_boxes.outside.points
    inside = (np.abs(points[:, :2]) < 0.09).all(1) & (axis < 2)  # walls of one box within the other
    assert not inside.any() and len(points) > 20000


def test_walls_of_a_reference_are_flat_and_its_edges_right_angles(crossed_boxes: ReferenceSurface) -> None:
    """36 edges of 90 degrees, 7.2 long in all, and nothing else: finer triangles only add flat edges."""
    coarse, fine = crossed_boxes.quality(500), crossed_boxes.quality(4000)
    assert 0 < fine.dihedral_deg < coarse.dihedral_deg < 60.0
    # Normals differ only within a cell of edges, on both sides, by about 45 degrees; the area is 0.88.
    assert fine.normal_error_deg < 45.0 * 7.2 * 2 * CELL / 0.88
    assert crossed_boxes.quality(500) is coarse  # kept


def test_open_parts_have_no_inside() -> None:
    tube, box = solids.rod((0, 0, 0), (0, 0, 1), 0.2), solids.box((1, 1, 1))
    assert is_closed(triangulated([part(tube)])[0]) and is_closed(triangulated([part(box)])[0])
    assert not is_closed(triangulated([part((box[0], box[1][:-1]))])[0])


@pytest.mark.parametrize("prop", ["torus", "boat"])
def test_reference_fills_the_space_of_the_prop(prop: str) -> None:
    """A mesh of nearly as many triangles as asked for, in the space that the prop's own triangles fill."""
    reference, model = reference_surface(prop), props.triangles(props.build(prop))
    mesh = reference.mesh(8000)
    assert 7000 < len(mesh.faces) <= 8000
    for bound in (np.min, np.max):  # thin tips are lost within two cells
        np.testing.assert_allclose(bound(mesh.vertices, 0), bound(model.vertices, 0), rtol=0, atol=2 * CELL)
