# SPDX-License-Identifier: GPL-3.0-or-later
"""All field types: encodings and biases against closed forms, normals against finite differences."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from dreamwright.backend.config.schema import FieldConfig
from dreamwright.backend.fields import build_field
from dreamwright.backend.fields.density import activate_density, biased_density, density_bias, normal_potential
from dreamwright.backend.fields.encoding import integrated_encoding
from dreamwright.backend.fields.voxels import (
    along_axes,
    difference_matrix,
    interpolation_matrix,
    smoothing_matrix,
)

VOXELS = FieldConfig(
    kind="voxels",
    bounding_radius=0.6,
    voxel_resolutions=(8, 24),
    density_activation="softplus",
    density_bias_on="density",
)
MLP = FieldConfig(hidden_width=32, hidden_blocks=2, encoding_levels=4, density_bias_on="density")
HASH = replace(VOXELS, kind="hash-grid", hash_levels=4, hash_log2_size=9, hash_base_resolution=4, hash_hidden_width=8)
RAW_MLP = replace(MLP, density_bias_on="raw")
RAW_VOXELS = replace(VOXELS, density_bias_on="raw")


def test_integrated_encoding_is_the_expected_sine(generator: torch.Generator) -> None:
    """Monte Carlo over 400,000 draws, within five standard errors."""
    mu, std, levels = torch.tensor([[0.3, -0.7, 0.9]]), 0.21, 3
    draws = mu + std * torch.randn(400_000, 3, generator=generator)
    scales = 2.0 ** torch.arange(levels)
    angles = (draws[:, None, :] * scales[:, None]).flatten(1)
    expected = torch.cat([angles.sin().mean(0), angles.cos().mean(0)])
    torch.testing.assert_close(integrated_encoding(mu, std, levels)[0], expected, atol=5 / math.sqrt(400_000), rtol=0)


def test_wide_covariance_hides_high_frequencies() -> None:
    encoded = integrated_encoding(torch.rand(9, 3), 0.5, 8).view(9, 2, 8, 3)
    assert encoded[:, :, -1].abs().max() == 0 < encoded[:, :, 0].abs().max()  # exp(-(2^7 0.5)^2 / 2) = exp(-2048)


def test_density_bias_is_equation_nine() -> None:
    mu = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.0, 0.0], [0.0, 0.3, 0.4]])
    expected = torch.tensor([5.0, 5 * math.exp(-0.5), 5 * math.exp(-0.25 / 0.08)])
    # The exponential of a float32 argument of up to 3.1: some roundings of 3.1 x 6e-8.
    torch.testing.assert_close(density_bias(mu, FieldConfig(), 0.7), expected, rtol=2e-6, atol=0)


def test_fading_bias_is_zero_after_its_share() -> None:
    config = FieldConfig(
        density_bias="linear", density_bias_scale=10, density_bias_width=0.5, density_bias_fade_share=0.5
    )
    mu = torch.tensor([[0.25, 0.0, 0.0]])
    values = [float(density_bias(mu, config, p)) for p in (0.0, 0.25, 0.5, 1.0)]
    assert values == pytest.approx([5.0, 2.5, 0.0, 0.0], abs=2e-6)  # float32: some roundings of 5 x 6e-8


@pytest.mark.parametrize("kind", ["mip-mlp", "voxels", "hash-grid"])
def test_density_bias_before_or_after_the_activation(kind: str) -> None:
    """With raw values of zero, tau at the origin is exp(5) = 148.4, or exp(0) + 5 = 6."""
    for bias_on, expected in (("density", 6.0), ("raw", math.exp(5.0))):
        config = FieldConfig(
            kind=kind,
            hidden_width=8,
            hidden_blocks=1,
            voxel_resolutions=(9,),
            hash_log2_size=9,
            density_bias_on=bias_on,
        )
        field = build_field(config, torch.Generator())
        with torch.no_grad():
            for parameter in field.parameters():
                parameter.zero_()
        field.begin_step(0.0)
        # The exponential of a float32 argument: 5 x 6e-8 = 3e-7, and a few roundings.
        assert float(field.density(torch.zeros(1, 3)).detach()) == pytest.approx(expected, rel=3e-6)


@given(raw=st.floats(-30, 30), bias=st.floats(0, 50), activation=st.sampled_from(["exp", "softplus"]))
def test_density_bias_keeps_gradients_beyond_the_cut(raw: float, bias: float, activation: str) -> None:
    config = FieldConfig(density_activation=activation, density_scale=2.0, density_bias_on="density")
    values = torch.tensor([raw], dtype=torch.float64, requires_grad=True)
    blob = torch.tensor([bias], dtype=torch.float64)
    tau = biased_density(values, blob, config)
    expected = 2 * math.exp(min(raw, 11.0)) if activation == "exp" else 2 * math.log1p(math.exp(raw))
    # Float64; torch's softplus is the identity beyond 20, which is e^-20 / 20 = 1e-10 off.
    assert float(tau.detach()) == pytest.approx(expected + bias, rel=1e-9)
    (slope,) = torch.autograd.grad(normal_potential(values, blob, config), values)
    assert float(slope) > 0


def test_exponential_activation_never_overflows() -> None:
    assert torch.isfinite(activate_density(torch.tensor([1e6]), "exp", 1.0)).all()
    torch.testing.assert_close(
        activate_density(torch.tensor([1.5]), "exp", 2.0), torch.tensor([2 * math.exp(1.5)]), rtol=1e-6, atol=0
    )  # float32: a few roundings of 6e-8


def test_covariance_anneals_linearly(generator: torch.Generator) -> None:
    field = build_field(FieldConfig(), generator)
    seen = []
    for progress in (0.0, 1 / 6, 1 / 3, 1.0):
        field.begin_step(progress)
        seen.append(field.covariance_scale)
    assert seen == pytest.approx([0.05, 0.026, 0.002, 0.002], rel=1e-12)  # a few operations in float64


@pytest.mark.parametrize("config", [MLP, RAW_MLP], ids=["bias on density", "bias on raw values"])
def test_mlp_normals_equal_finite_differences(config: FieldConfig, generator: torch.Generator) -> None:
    field = build_field(config, generator).double()
    field.begin_step(0.5)
    mu = 0.6 * torch.rand(40, 3, generator=generator, dtype=torch.float64) - 0.3
    normal = field.query(mu, with_normals=True).normal
    step = 1e-5
    gradient = torch.stack(
        [
            (field.density(mu + step * axis) - field.density(mu - step * axis)) / (2 * step)
            for axis in torch.eye(3).double()
        ],
        dim=1,
    )
    # Central differences in float64 err by 1.1e-16 / 1e-5 = 1e-11, and by 1e-10 / 6 times third derivatives, some
    # 8^3 = 512 times the first of frequencies up to 2^3: 9e-9.
    torch.testing.assert_close(normal, -torch.nn.functional.normalize(gradient, dim=1), atol=1e-7, rtol=0)


@pytest.mark.parametrize("config", [VOXELS, RAW_VOXELS], ids=["bias on density", "bias on raw values"])
def test_voxel_normals_equal_finite_differences(config: FieldConfig, generator: torch.Generator) -> None:
    """The smooth density bias has radial gradients, and differences on the grid agree with them within 3 degrees.

    With the cell h = 1.2 / 23, central differences err by h^2 / 6 and interpolation by up to h^2 / 8 times third
    derivatives. Those of the Gaussian of width 0.2 are up to 3 / 0.2^2 = 75 times the first, so components err by up to
    6%, and a direction between two axes by half of that, 1.7 degrees.
    """
    field = build_field(config, generator)
    field.begin_step(0.0)
    directions = torch.nn.functional.normalize(torch.randn(60, 3, generator=generator), dim=1)
    mu = directions * (0.2 + 0.2 * torch.rand(60, 1, generator=generator))
    with torch.no_grad():
        for grid in (*field.raw_density, *field.raw_albedo):
            grid.zero_()
        field.begin_step(0.0)
        normal = field.query(mu, with_normals=True).normal
    cosine = (normal * directions).sum(1)
    assert cosine.min() > math.cos(math.radians(3))


@pytest.mark.parametrize("config", [VOXELS, MLP, HASH], ids=["voxels", "mip-mlp", "hash-grid"])
def test_ranges_of_albedo_density_and_normals(config: FieldConfig, generator: torch.Generator) -> None:
    field = build_field(config, generator)
    field.begin_step(0.2)
    sample = field.query(torch.rand(50, 3, generator=generator) - 0.5, with_normals=True)
    assert (sample.tau >= 0).all() and ((sample.rho >= 0) & (sample.rho <= 1)).all()
    # Normalized in float32: a few roundings of 6e-8.
    torch.testing.assert_close(sample.normal.norm(dim=1), torch.ones(50), atol=1e-6, rtol=0)


@pytest.mark.parametrize("config", [VOXELS, MLP, HASH], ids=["voxels", "mip-mlp", "hash-grid"])
def test_shading_gradients_reach_every_parameter(config: FieldConfig, generator: torch.Generator) -> None:
    field = build_field(config, generator)
    field.begin_step(0.0)
    sample = field.query(torch.rand(80, 3, generator=generator) - 0.5, with_normals=True)
    (sample.tau.sum() + (sample.rho * sample.normal).sum()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in field.parameters())


@pytest.mark.parametrize("config", [MLP, HASH], ids=["mip-mlp", "hash-grid"])
def test_same_seed_builds_the_same_field(config: FieldConfig) -> None:
    first, second = (build_field(config, torch.Generator().manual_seed(4)) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@given(size=st.integers(1, 9), more=st.integers(1, 9), channels=st.integers(1, 3), seed=st.integers(0, 999))
def test_level_upsampling_is_trilinear(size: int, more: int, channels: int, seed: int) -> None:
    """Against torch's interpolate with align_corners, in float64, at random sizes. Gradients are compared as well."""
    draws = torch.Generator().manual_seed(seed)
    larger = size + more
    grid = torch.randn(1, channels, size, size, size, generator=draws, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(1, channels, larger, larger, larger, generator=draws, dtype=torch.float64)
    ours = along_axes(grid, *[interpolation_matrix(size, larger).double()] * 3)
    theirs = functional.interpolate(grid, size=(larger,) * 3, mode="trilinear", align_corners=True)
    # The matrices are float32: three weights of error 6e-8 and values below 6, summed over 8 corners, give 9e-6.
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    gradients = [torch.autograd.grad(values, grid, weights)[0] for values in (ours, theirs)]
    # A coarse vertex sums weights of up to (11 / 2)^3 = 166, with errors of 1.8e-7 and values of size 1: 3e-5.
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=0)


def test_unprepared_voxel_field_is_an_error(generator: torch.Generator) -> None:
    with pytest.raises(RuntimeError, match="begin_step"):
        build_field(VOXELS, generator).density(torch.zeros(1, 3))


@given(st.integers(1, 12), st.integers(0, 10_000))
def test_smoothed_slopes_equal_pooled_differences(size: int, seed: int) -> None:
    """Matrices along the axes against the mean of 27 neighbors and central differences, edges repeated."""
    grid = torch.randn(1, 2, size, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def padded(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(values, (1,) * 6, mode="replicate")

    smooth = torch.nn.functional.avg_pool3d(padded(grid), 3, stride=1)
    expected = padded(smooth)[..., 1:-1, 2:, 1:-1] - padded(smooth)[..., 1:-1, :-2, 1:-1]  # along y
    mean = smoothing_matrix(size)
    found = along_axes(grid, mean, difference_matrix(size) @ mean, mean)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)  # float64 sums of 54 numbers below 5
