# SPDX-License-Identifier: GPL-3.0-or-later
"""Camera and light distributions of appendix A.2, and the frames of docs/developer/conventions.md."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dreamwright.backend.cameras.poses import (
    Cameras,
    camera_rays,
    look_at,
    orbit_cameras,
    sample_cameras,
    sample_lights,
    spherical,
)
from dreamwright.backend.config.schema import CameraConfig, LightConfig

N = 20_000
# Level of the Kolmogorov-Smirnov tests: a true distribution fails with one seed in 1000 (3.3 standard errors). The
# seeds are fixed, and the draws of two CPUs differ by rounding only, so the p-values are the same everywhere.
P_LIMIT = 1e-3


@pytest.fixture(scope="module")
def plain() -> Cameras:
    """Many cameras without perturbation, so that angles and distances are exact."""
    config = CameraConfig(look_at_std=0.0, up_std=0.0, position_offset=0.0)
    return sample_cameras(config, N, torch.Generator().manual_seed(3))


def test_elevation_distribution(plain: Cameras) -> None:
    """CDF = 1/2 (e + 10) / 100 + 1/2 max(0, sin e) (appendix A.2); Kolmogorov-Smirnov does not reject it."""

    def cdf(elevation: np.ndarray) -> np.ndarray:
        return 0.5 * (elevation + 10) / 100 + 0.5 * np.sin(np.radians(elevation)).clip(min=0)

    assert stats.kstest(plain.elevation.double().numpy(), cdf).pvalue > P_LIMIT
    below = float((plain.elevation < 0).float().mean())
    assert abs(below - 0.05) < 4 * math.sqrt(0.05 * 0.95 / N)  # half of 10 degrees of 100; four standard errors


@given(low=st.floats(-80, 60), area=st.floats(-90, 60), height=st.floats(1, 30))
def test_uniform_area_draws_start_at_the_higher_limit(low: float, area: float, height: float) -> None:
    config = CameraConfig(
        elevation_min=low, elevation_max=max(low, area) + height, area_elevation_min=area, uniform_angle_share=0.0
    )
    elevation = sample_cameras(config, 400, torch.Generator().manual_seed(1)).elevation
    lowest, highest = math.sin(math.radians(max(low, area))), math.sin(math.radians(config.elevation_max))
    sines = torch.sin(torch.deg2rad(elevation.double())).numpy()
    # Ten times less than P_LIMIT, since hypothesis tries 15 distributions.
    assert stats.kstest(sines, "uniform", args=(lowest, highest - lowest)).pvalue > 0.1 * P_LIMIT


def test_azimuth_distance_and_focal_are_uniform(plain: Cameras) -> None:
    for values, low, width in (
        (plain.azimuth, 0, 360),
        (plain.position.norm(dim=1), 1.0, 0.5),
        (plain.focal, 0.7, 0.65),
    ):
        assert stats.kstest(values.double().numpy(), "uniform", args=(low, width)).pvalue > P_LIMIT


def test_look_at_has_the_papers_covariance() -> None:
    """The central ray passes through the look-at point, whose variance per axis is 0.2."""
    config = CameraConfig(position_offset=0.0, up_std=0.0)
    draws = sample_cameras(config, N, torch.Generator().manual_seed(5))
    aimed = sample_cameras(
        CameraConfig(position_offset=0.0, up_std=0.0, look_at_std=0.0), N, torch.Generator().manual_seed(5)
    )
    assert draws.position.equal(aimed.position)
    # The viewing direction of a target ~ N(0, .2 I): P(target beyond the camera's plane) is Phi(-d / sqrt(.2)).
    distance = draws.position.norm(dim=1, keepdim=True)
    behind = ((-draws.rotation[:, :, 2] * draws.position / distance).sum(1) > 0).float().mean()
    expected = stats.norm.cdf(-distance.numpy() / math.sqrt(0.2)).mean()
    assert abs(float(behind) - expected) < 4 * math.sqrt(expected / N)  # four standard errors of a rare event


def test_light_directions_and_distances() -> None:
    cameras = sample_cameras(CameraConfig(), N, torch.Generator().manual_seed(7))
    lights = sample_lights(LightConfig(), cameras, torch.Generator().manual_seed(8))
    assert stats.kstest(lights.norm(dim=1).double().numpy(), "uniform", args=(0.8, 0.7)).pvalue > P_LIMIT
    # direction ~ N(p, I): along the camera's axis the mean before normalizing is |p|, so P(same side) = Phi(|p|).
    along = (lights * cameras.position).sum(1) > 0
    expected = stats.norm.cdf(cameras.position.norm(dim=1).numpy()).mean()
    assert abs(float(along.float().mean()) - expected) < 4 * math.sqrt(0.25 / N)  # four standard errors, at most


def test_azimuth_convention() -> None:
    cameras = orbit_cameras([0, 90, 180], 0.0, 2.0, 1.0)
    # float32's pi is 8.7e-8 off, twice that at a distance of 2; with the rounding of sines, a margin of four or more.
    torch.testing.assert_close(cameras.position, torch.tensor([[0.0, -2, 0], [2, 0, 0], [0, 2, 0]]), atol=1e-6, rtol=0)
    # Components of unit vectors near 0 and 1: a few roundings of 6e-8.
    torch.testing.assert_close(
        cameras.rotation[0], torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), atol=1e-6, rtol=0
    )


def test_rotations_are_right_handed_and_orthonormal(generator: torch.Generator) -> None:
    rotation = sample_cameras(CameraConfig(elevation_min=89.9), 64, generator).rotation
    # Cross products of float32 unit vectors whose angle has the sine s err by some 6e-8 / s. These 64 cameras have s
    # above 0.15, so columns are off by some 4e-7.
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(64, 3, 3), atol=1e-5, rtol=0)
    # The product of three such columns.
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(64), atol=3e-5, rtol=0)


def test_center_ray_and_first_pixel() -> None:
    cameras = orbit_cameras([30.0], 25.0, 1.7, 1.2)
    rays = camera_rays(cameras, 5)
    # Unit vectors in float32: a few roundings of 6e-8.
    torch.testing.assert_close(rays.directions[0, 12], -cameras.position[0] / 1.7, atol=1e-6, rtol=0)
    corner = cameras.rotation[0].T @ rays.directions[0, 0]
    assert corner[0] < 0 < corner[1]
    # The corner pixel's center is 0.4 widths left of the middle, at distance focal.
    # A rotation back and forth in float32: some ten roundings of 6e-8, with a margin of eight.
    assert float(corner[0] / corner[2]) == pytest.approx(0.4 / 1.2, rel=5e-6)


def test_fill_framing_covers_the_given_share(generator: torch.Generator) -> None:
    cameras = sample_cameras(
        CameraConfig(framing="fill", fill_min=0.8, fill_max=0.8, position_offset=0.0), 8, generator
    )
    covered = 2 * 0.5 / cameras.position.norm(dim=1) * cameras.focal
    # A norm and two products in float32 near 1: a few roundings of 6e-8.
    torch.testing.assert_close(covered, torch.full((8,), 0.8), atol=1e-6, rtol=0)


def test_stratified_azimuths_are_evenly_spread(generator: torch.Generator) -> None:
    azimuth = sample_cameras(CameraConfig(stratified_azimuth=True), 4, generator).azimuth.sort().values
    # Degrees up to 360 are rounded to 1.5e-5 in float32; a difference holds a few roundings.
    torch.testing.assert_close(azimuth.diff(), torch.full((3,), 90.0), atol=2e-4, rtol=0)


def test_look_at_of_a_known_pose() -> None:
    position = spherical(torch.tensor([0.0]), torch.tensor([90.0]), torch.tensor([1.0]))
    rotation = look_at(position, torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 0.0]]))
    # The float32 cosine of 90 degrees is 4.4e-8; a few roundings of that size.
    torch.testing.assert_close(rotation[0], torch.eye(3), atol=1e-6, rtol=0)
