# SPDX-License-Identifier: GPL-3.0-or-later
"""The extracted surface is closed and lies at its iso-value; the automatic threshold follows opacity and depth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.backend.errors import RunError
from dreamwright.backend.geometry.extract import (
    BISECTIONS,
    DensityGrid,
    extract_surface,
    fill_cavities,
    occupied_box,
    query_density,
    refine_surface,
    sample_density_grid,
    surface_level,
)
from dreamwright.backend.geometry.threshold import choose_threshold, first_crossing, march
from dreamwright.backend.geometry.topology import (
    Surface,
    degenerate_faces,
    euler_number,
    is_manifold,
    is_watertight,
    signed_volume,
)
from dreamwright.backend.mesh_rendering.rasterize import orbit_axes
from tests.testing.analytic_fields import AnalyticField, box, sphere, torus, union


def refined(field: AnalyticField, resolution: int, threshold: float) -> tuple[Surface, DensityGrid]:
    grid = sample_density_grid(field, resolution)
    return refine_surface(field, grid, extract_surface(grid, threshold), threshold), grid


@pytest.mark.parametrize("softness", [0.03, 0.01, 0.0005])
def test_sphere_radius_volume_and_genus(softness: float) -> None:
    """tau is half of its peak exactly at the radius, for any softness of the edge relative to the cells."""
    field = AnalyticField(sphere(0.5), peak=100.0, softness=softness, bounding_radius=0.8)
    raw, (surface, grid) = extract_surface(sample_density_grid(field, 40), 50.0), refined(field, 40, 50.0)
    assert (
        np.abs(np.linalg.norm(raw.vertices, axis=1) - 0.5).max() < grid.cell
    )  # accuracy of the grid without refinement
    assert np.abs(np.linalg.norm(surface.vertices, axis=1) - 0.5).max() < grid.cell / 2**BISECTIONS
    # Edges of up to sqrt(3) cells of 0.04 lie up to 3 x 0.04^2 / (8 x 0.5) = 1.2e-3 inside: at most 0.7% of the volume.
    assert signed_volume(surface) == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.01)
    assert is_manifold(surface.faces) and euler_number(surface.faces) == 2
    assert not degenerate_faces(surface).any()


def test_torus_keeps_its_hole() -> None:
    surface, _ = refined(AnalyticField(torus(0.35, 0.12), bounding_radius=0.6), 40, 100.0)
    assert euler_number(surface.faces) == 0
    assert is_manifold(surface.faces)
    # The tube's radius is 4 cells: chords of one cell cut 1 / (8 x 16) = 0.8% of it, 1.6% of the volume.
    assert signed_volume(surface) == pytest.approx(2 * math.pi**2 * 0.35 * 0.12**2, rel=0.02)


def test_surface_refinement_flattens_a_sharp_wall() -> None:
    field = AnalyticField(box((0.3, 0.2, 0.1)), peak=1000.0, softness=1e-3, bounding_radius=0.7)
    surface, grid = refined(field, 37, 20.0)
    raw = extract_surface(grid, 20.0)
    assert np.abs(surface.vertices - raw.vertices).max() < grid.cell
    top = (np.abs(surface.vertices[:, 0]) < 0.2) & (np.abs(surface.vertices[:, 1]) < 0.1) & (surface.vertices[:, 2] > 0)
    assert top.sum() > 50  # 0.4 x 0.2 in squares of 0.038 are 56 vertices
    # Bisections end within 1 / 32 of a cell, 1.2e-3. The density is followed inside of it, so the wall of softness 1e-3
    # is flat within a tenth of both.
    assert np.abs(surface.vertices[top, 2] - 0.1 - 1e-3 * math.log(1000 / 20 - 1)).max() < 1e-4


def test_full_field_is_closed_at_the_bounding_sphere() -> None:
    field = AnalyticField(lambda mu: torch.full((len(mu),), -1.0), bounding_radius=0.7)
    surface = extract_surface(sample_density_grid(field, 30), 5.0)
    assert is_watertight(surface.faces) and euler_number(surface.faces) == 2
    assert np.linalg.norm(surface.vertices, axis=1).max() < 0.7 + 1.4 / 30  # one cell
    assert field.furthest_query <= 0.7


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(4, 12))
def test_white_noise_gives_a_closed_manifold(seed: int, size: int) -> None:
    noise = np.exp(np.random.default_rng(seed).normal(size=(size, size + 1, size))).astype(np.float32)
    noise[0] = noise[-1] = noise[:, 0] = noise[:, -1] = noise[:, :, 0] = noise[:, :, -1] = 0
    noise[1, 1, 1] = 1.0  # a node exactly on the surface
    surface = extract_surface(DensityGrid(np.maximum(noise, 0), np.zeros(3), 1.0), 1.0)
    assert is_watertight(surface.faces)
    assert signed_volume(surface) > 0
    assert len(np.unique(surface.vertices, axis=0)) == len(surface.vertices)


def test_surface_level_of_an_exponential_density() -> None:
    tau = np.exp(np.array([-0.3, 0.1]))  # log tau is linear: it crosses log 1 = 0 three quarters of the way
    level = surface_level(tau, 1.0)
    crossing = math.tanh(0.15) / (math.tanh(0.15) + math.tanh(0.05))  # 0.7488
    # Float64: a difference of 0.05 of numbers near 1 keeps 1.1e-16 / 0.05 = 2e-15.
    assert level[0] / (level[0] - level[1]) == pytest.approx(crossing, rel=1e-13)
    cliff = surface_level(np.array([0.0, 1e6]), 1.0)
    steep = (1e6 - 1) / (1e6 + 1)  # the levels are -1 and this
    assert cliff[0] / (cliff[0] - cliff[1]) == pytest.approx(1 / (1 + steep), rel=1e-13)


def test_enclosed_cavities_are_filled() -> None:
    level = np.full((9, 9, 9), -1.0)
    level[2:7, 2:7, 2:7] = 1.0
    level[4, 4, 4] = -1.0
    assert fill_cavities(level)[4, 4, 4] == 1.0
    level[4, 4, 4:] = -1.0  # a shaft to the outside
    assert np.array_equal(fill_cavities(level), level)


def test_occupied_box_ignores_specks() -> None:
    field = AnalyticField(union(box((0.3, 0.2, 0.1)), sphere(0.03, (1.0, 0.0, 0.0))))
    grid = sample_density_grid(field, 64)
    low, high = occupied_box(grid, 100.0, margin=2.0)
    half = np.array([0.3, 0.2, 0.1])
    assert (low < -half + 1e-6).all() and (high > half - 1e-6).all()  # 1e-6: float32 coordinates
    # The margin of 2 cells, one for the node outside of the surface, and half of one for its softness of 0.01.
    assert (high < half + 3.5 * grid.cell).all() and (low > -half - 3.5 * grid.cell).all()


def test_empty_field_is_a_one_line_run_error() -> None:
    field = AnalyticField(sphere(0.4), peak=1e-3)
    grid = sample_density_grid(field, 24)
    for attempt in (
        lambda: choose_threshold(grid),
        lambda: extract_surface(grid, 5.0),
        lambda: occupied_box(grid, 5.0, 1.0),
    ):
        with pytest.raises(RunError, match="the field is empty") as caught:
            attempt()
        assert "\n" not in str(caught.value) and caught.value.exit_code == 1


def test_nan_density_is_a_run_error() -> None:
    field = AnalyticField(lambda mu: mu[:, 0] * float("nan"))
    with pytest.raises(RunError, match="not finite"):
        query_density(field, np.zeros((3, 3)))


def rendered_radii(radius: float, peak: float, softness: float) -> tuple[float, float]:
    """float64 integrals of a soft sphere: radius of the median depth head on, and of the opacity-1/2 outline."""
    along = np.linspace(-1.3, 1.3, 20001)
    step = along[1] - along[0]

    def tau(r: np.ndarray) -> np.ndarray:
        return peak / (1.0 + np.exp(np.clip((r - radius) / softness, -60, 60)))

    center = np.cumsum(tau(np.abs(along))) * step
    head_on = -along[np.searchsorted(center, math.log(2))]
    offsets = np.linspace(0, 1.0, 400)
    optical = np.array([tau(np.hypot(along, b)).sum() * step for b in offsets])
    return head_on, float(offsets[optical > math.log(2)].max())


@pytest.mark.parametrize("peak", [12.0, 100.0, 1e3, 1e4, 1e6])
def test_threshold_recovers_a_soft_sphere_at_any_scale(peak: float) -> None:
    field = AnalyticField(sphere(0.4), peak=peak, softness=0.01, bounding_radius=0.8)
    grid = sample_density_grid(field, 56)
    threshold = choose_threshold(grid)
    radius = np.linalg.norm(extract_surface(grid, threshold).vertices, axis=1).mean()
    head_on, outline = rendered_radii(0.4, peak, 0.01)
    assert min(head_on, outline) - 0.5 * grid.cell < radius < max(head_on, outline) + 0.5 * grid.cell
    assert threshold == choose_threshold(grid)  # deterministic
    other = sample_density_grid(field, 51)
    again = np.linalg.norm(extract_surface(other, choose_threshold(other)).vertices, axis=1).mean()
    assert again == pytest.approx(radius, abs=0.5 * grid.cell)  # independent of the position of the grid nodes


def test_thin_fog_is_not_meshed() -> None:
    solid, fog = AnalyticField(sphere(0.35), peak=200.0), AnalyticField(sphere(0.75), peak=0.25)
    solid.density, inner = (lambda mu: inner(mu) + fog.density(mu)), solid.density  # type: ignore[method-assign]
    solid.bounding_radius = 0.9
    grid = sample_density_grid(solid, 48)
    threshold = choose_threshold(grid)
    assert threshold > 1.0  # four times the fog's density
    # The ball of 0.35 and two cells of 1.8 / 48; the fog would reach 0.75.
    assert np.linalg.norm(extract_surface(grid, threshold).vertices, axis=1).max() < 0.42


def test_march_measures_the_chord_of_each_ray() -> None:
    field = AnalyticField(sphere(0.4), peak=2.0, softness=1e-4, bounding_radius=0.8)
    grid = sample_density_grid(field, 64)
    bundle = march(grid, orbit_axes(30.0, 20.0), resolution=32)
    radius = 0.5 * float(np.linalg.norm(grid.extent))
    across = ((np.arange(32) + 0.5) / 32 * 2 - 1) * radius
    offset = np.hypot(across[None, :], across[:, None]).reshape(-1)
    chord = 2.0 * np.sqrt(np.maximum(0.4**2 - offset**2, 0.0))
    measured = (bundle.tau.sum(dim=1) * bundle.step / 2.0).numpy()
    clear = np.abs(offset - 0.4) > 2 * grid.cell
    # Interpolation between nodes moves each end by up to half a cell.
    assert np.abs(measured - chord)[clear].max() < grid.cell


def test_march_follows_the_camera_axis() -> None:
    """A ball at the front (-Y) is near from azimuth 0, far from azimuth 180, to the left from 90; row 0 is the top."""
    field = AnalyticField(sphere(0.2, (0.3, -0.4, 0.1)), peak=500.0, softness=0.002, bounding_radius=0.8)
    grid = sample_density_grid(field, 40)
    radius = 0.5 * float(np.linalg.norm(grid.extent))
    for azimuth, column, depth in ((0.0, 0.3, radius - 0.6), (180.0, -0.3, radius + 0.2), (90.0, -0.4, radius - 0.5)):
        bundle = march(grid, orbit_axes(azimuth, 0.0), resolution=48)
        rows, columns = np.nonzero(bundle.opaque.reshape(48, 48).numpy())
        # Half a pixel is 0.02 and half a cell 0.01 of the half width. In depth half a cell is 0.02, and the nearest ray
        # passes up to 0.04 beside the axis of the ball of radius 0.2, which is 0.004 deeper.
        assert (columns.mean() + 0.5) / 24 - 1 == pytest.approx(column / radius, abs=0.03)
        assert 1 - (rows.mean() + 0.5) / 24 == pytest.approx(0.1 / radius, abs=0.03)
        assert float(bundle.median_depth[bundle.opaque].min()) == pytest.approx(depth, abs=0.03)


def test_first_crossing_interpolates_inside_the_step() -> None:
    values = torch.tensor([[0.0, 1.0, 3.0], [0.0, 0.0, 0.5], [2.0, 2.0, 2.0]])
    # The level is 1e-6 below 2, so the crossing 5e-7 below 1.5; float32 values near 2 have roundings of 1.2e-7.
    assert first_crossing(values, 2.0 - 1e-6)[0].item() == pytest.approx(1.5, abs=2e-6)
    assert first_crossing(values, 1.0).tolist()[1] == 3.0  # never
    assert first_crossing(values, 1.0).tolist()[2] == -0.5
