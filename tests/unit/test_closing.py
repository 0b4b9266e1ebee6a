# SPDX-License-Identifier: GPL-3.0-or-later
"""Morphological closing: narrow pits of a solid are filled and wide ones stay open."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from dreamwright.backend.geometry.closing import close_pits, project_to_solid
from dreamwright.backend.geometry.extract import DensityGrid, extract_surface
from dreamwright.backend.geometry.topology import euler_number

CELL = 0.02
AXIS = CELL * (np.arange(61) - 30)
X, Y, Z = np.meshgrid(AXIS, AXIS, AXIS, indexing="ij")


def grid_of(solid: np.ndarray) -> DensityGrid:
    return DensityGrid(np.where(solid, 100.0, 0.0).astype(np.float32), np.full(3, AXIS[0]), CELL)


def solid_of(grid: DensityGrid) -> np.ndarray:
    return grid.tau > 10.0


BALL = X**2 + Y**2 + Z**2 < 0.4**2


@pytest.mark.parametrize("width, open_", [(0.04, False), (0.06, False), (0.16, True)])
def test_narrow_pits_are_filled_and_wide_ones_kept(width: float, open_: bool) -> None:
    """A square shaft to the middle of a ball, closed with a ball of diameter 0.1."""
    shaft = (abs(X) < width / 2) & (abs(Y) < width / 2) & (Z > 0)
    closed = solid_of(close_pits(grid_of(BALL & ~shaft), 10.0, 0.05))
    deep = shaft & (X**2 + Y**2 + Z**2 < 0.3**2) & (Z > 0.12)
    assert deep.any() and (closed[deep] != open_).all()


def test_torus_hole_stays_open() -> None:
    torus = (np.hypot(X, Y) - 0.34) ** 2 + Z**2 < 0.135**2
    closed = close_pits(grid_of(torus), 10.0, 0.05)
    assert euler_number(extract_surface(closed, 10.0).faces) == 0
    assert (solid_of(closed) == torus).all()


def test_ball_is_unchanged() -> None:
    closed = solid_of(close_pits(grid_of(BALL), 10.0, 0.06))
    assert (closed == BALL).all()


def test_radius_zero_changes_nothing() -> None:
    grid = grid_of(BALL)
    assert close_pits(grid, 10.0, 0.0) is grid


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), reach=st.integers(1, 4))
def test_closing_equals_a_reference_implementation(seed: int, reach: int) -> None:
    """scipy's binary closing, with the ball of all nodes nearer than `reach` + 1/2 cells."""
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(24, 24, 24)), 1.5)
    solid = rough > 0.05
    grid = DensityGrid(np.where(solid, 100.0, 0.0).astype(np.float32), np.zeros(3), CELL)
    ours = solid_of(close_pits(grid, 10.0, reach * CELL))
    steps = np.arange(-reach - 1, reach + 2)
    distance = np.sqrt(sum(s**2 for s in np.meshgrid(steps, steps, steps)))
    expected = ndimage.binary_closing(np.pad(solid, 8), distance < reach + 0.5)[8:-8, 8:-8, 8:-8]
    assert (ours == (expected | solid)).all()


def test_points_in_a_filled_pit_move_to_its_wall() -> None:
    points = np.array([[0.0, 0.0, 0.4 + 4 * CELL], [0.0, 0.0, 0.4 + CELL], [0.1, 0.0, 0.0]])
    moved = project_to_solid(grid_of(BALL), 10.0)(points)
    # The highest node inside; its coordinates are products in float64, a rounding of 1.1e-16.
    np.testing.assert_allclose(moved[0], [0, 0, 0.38], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(moved[1:], points[1:])
