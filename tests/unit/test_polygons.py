# SPDX-License-Identifier: GPL-3.0-or-later
"""Triangulation covers polygons of any shape exactly once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.backend.geometry.polygons import clip_ears, newell_normal, triangulate


def areas(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Signed areas along the polygon's normal."""
    normal = newell_normal(points)
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    return 0.5 * np.cross(b - a, c - a) @ (normal / np.linalg.norm(normal))


L_SHAPE = [[0, 0, 0], [2, 0, 0], [2, 1, 0], [1, 1, 0], [1, 2, 0], [0, 2, 0]]
COMB = [[0, 0, 0], [5, 0, 0], [5, 3, 0], [4, 1, 0], [3, 3, 0], [2, 1, 0], [1, 3, 0], [0.5, 1, 0], [0, 3, 0]]
# A square of side 4 with a square hole of side 2, joined by a bridge that is traversed twice.
HOLE = [[0, 0, 0], [4, 0, 0], [4, 4, 0], [0, 4, 0], [0, 0, 0], [1, 1, 0], [1, 3, 0], [3, 3, 0], [3, 1, 0], [1, 1, 0]]
ARROW = [[0, 0, 0], [2, -1, 0], [1, 0, 0], [2, 1, 0]]  # a concave quad
WITH_COLLINEAR = [[0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 2, 0], [1, 2, 0], [0, 2, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("polygon", "area"), [(L_SHAPE, 3.0), (COMB, 10.0), (HOLE, 12.0), (ARROW, 1.0), (WITH_COLLINEAR, 4.0)]
)
@pytest.mark.parametrize("start", [0, 1, 2, 3])
@pytest.mark.parametrize("turned", [False, True])
def test_area_is_invariant_to_first_corner_and_plane(polygon: list, area: float, start: int, turned: bool) -> None:
    points = np.roll(np.array(polygon, dtype=np.float64), start, axis=0)
    if turned:
        points = points[::-1] @ np.array([[0.6, 0, 0.8], [0, 1, 0], [-0.8, 0, 0.6]]).T + [1e5, -2e5, 3e5]
    triangles, owner = triangulate(points, np.arange(len(points)), np.array([len(points)]))
    found = areas(points, triangles)
    assert len(triangles) == len(points) - 2 and (owner == 0).all()
    # Coordinates of 3e5 are known to 6e-11, times ten triangles with edges of at most 5: 3e-9.
    assert found.sum() == pytest.approx(area, abs=1e-8) and (found > -1e-8).all(), "no triangle lies outside"


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0.3, 1.0), min_size=3, max_size=24), st.floats(-0.2, 0.2))
def test_star_shaped_polygon_is_covered_once(radii: list[float], lift: float) -> None:
    angle = 2 * np.pi * np.arange(len(radii)) / len(radii)
    flat = np.stack([radii * np.cos(angle), radii * np.sin(angle)], axis=1)
    points = np.column_stack([flat, lift * np.cos(3 * angle)])  # not planar
    triangles = clip_ears(points)
    x, y = flat.T
    shoelace = 0.5 * (x * np.roll(y, -1) - y * np.roll(x, -1)).sum()
    corners = flat[triangles]
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    signed = 0.5 * (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
    # float64: sums of at most 24 products below 1 are exact to 24 x 1.1e-16 = 3e-15, and the area is at least 0.1.
    assert signed.sum() == pytest.approx(shoelace, rel=1e-12)
    if lift == 0:
        assert (signed >= -1e-12).all()
    assert sorted(set(triangles.ravel())) == list(range(len(radii)))


def test_convex_quad_and_degenerate_polygon() -> None:
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=np.float64)
    assert triangulate(square, np.arange(4), np.array([4]))[0].tolist() == [[0, 1, 2], [0, 2, 3]]
    assert len(clip_ears(np.array([[0.0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3], [1, 1, 1]]))) == 3
