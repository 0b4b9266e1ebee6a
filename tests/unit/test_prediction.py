# SPDX-License-Identifier: GPL-3.0-or-later
"""Prediction types: conversions between noise, image, velocity and flow predictions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.backend.guidance.prediction import (
    PREDICTION_TYPES,
    clean_from,
    guided,
    noise_from,
    noise_residual,
    output_from,
    perpendicular,
)

angles = st.floats(0.02, math.pi / 2 - 0.02)
kinds = st.sampled_from(PREDICTION_TYPES)


def drawn(seed: int, *names: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64) for _ in names]


def levels(angle: float, flow: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A variance-preserving or a flow level of noise."""
    pair = (1 - angle / 2, angle / 2) if flow else (math.cos(angle), math.sin(angle))
    return torch.tensor(pair[0], dtype=torch.float64), torch.tensor(pair[1], dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(kinds, angles, st.booleans(), st.integers(0, 99))
def test_every_type_recovers_noise_and_image(kind, angle, flow, seed):
    clean, noise = drawn(seed, "x", "eps")
    alpha, sigma = levels(angle, flow)
    z_t = alpha * clean + sigma * noise
    output = output_from(kind, clean, noise, alpha, sigma)
    # float64: dividing by alpha or sigma, both at least 0.01, enlarges a few roundings of values of 4 (4e-16) to 1e-13.
    torch.testing.assert_close(noise_from(kind, output, z_t, alpha, sigma), noise, rtol=0, atol=1e-12)
    torch.testing.assert_close(clean_from(kind, output, z_t, alpha, sigma), clean, rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(kinds, kinds, angles, st.booleans(), st.integers(0, 99))
def test_conversion_between_types_is_exact(first, second, angle, flow, seed):
    """For any output, first -> (x0, eps) -> second -> eps gives the eps of the first."""
    output, z_t = drawn(seed, "output", "z")
    alpha, sigma = levels(angle, flow)
    noise = noise_from(first, output, z_t, alpha, sigma)
    clean = clean_from(first, output, z_t, alpha, sigma)
    # float64: noise and clean of up to 4 / 0.01 = 400 err by a few roundings of 5e-14.
    torch.testing.assert_close(alpha * clean + sigma * noise, z_t, rtol=0, atol=1e-11)
    again = output_from(second, clean, noise, alpha, sigma)
    # The second conversion divides by at least 0.01 once more: 5e-14 x 100 x a few.
    torch.testing.assert_close(noise_from(second, again, z_t, alpha, sigma), noise, rtol=0, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(kinds, angles, st.booleans(), st.floats(0, 100), st.integers(0, 99))
def test_residual_is_guided_noise_minus_noise(kind, angle, flow, omega, seed):
    clean, noise, conditional, unconditional = drawn(seed, "x", "eps", "c", "u")
    alpha, sigma = levels(angle, flow)
    z_t = alpha * clean + sigma * noise
    expected = (
        (1 + omega) * noise_from(kind, conditional, z_t, alpha, sigma)
        - omega * noise_from(kind, unconditional, z_t, alpha, sigma)
        - noise
    )
    residual = noise_residual(kind, guided(conditional, unconditional, omega), clean, noise, alpha, sigma)
    # float64: two terms of omega x 4 / 0.01 = 40,000 err by a few roundings of 7e-12.
    torch.testing.assert_close(residual, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_residual_is_accurate_in_float32_at_small_noise(kind):
    """For a nearly exact model, the direct residual is accurate where the difference of eps_hat and eps is not."""
    clean, noise, miss = drawn(0, "x", "eps", "miss")
    alpha, sigma = levels(1e-3, flow=False)
    wrong = clean + 1e-4 * miss
    wrong_noise = (alpha * (clean - wrong) + sigma * noise) / sigma
    # Inputs and outputs of a float32 model; the reference uses the same numbers in float64.
    output = output_from(kind, wrong, wrong_noise, alpha, sigma).float()
    inputs = [value.float() for value in (clean, noise, alpha, sigma)]
    exact = noise_residual(kind, output.double(), *(value.double() for value in inputs))
    error = (noise_residual(kind, output, *inputs) - exact).abs().max()
    # The reference has the same float32 inputs. Differences of close numbers are exact, so what remains is some ten
    # roundings of 6e-8: 6e-7, and 16 times that.
    assert error < 1e-5 * exact.abs().max()
    if kind == "sample":
        clean, noise, alpha, sigma = inputs
        naive = noise_from(kind, output, alpha * clean + sigma * noise, alpha, sigma) - noise
        # Dividing by sigma = 1e-3 enlarges the naive difference's rounding 1,000 times; a tenth of it is required.
        assert error < 0.01 * (naive - exact).abs().max()


def test_unknown_types_are_refused():
    x = torch.zeros(1)
    for call in (clean_from, noise_from, output_from):
        with pytest.raises(ValueError, match="'score'; allowed are epsilon"):
            call("score", x, x, x, x)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 5), views=st.integers(1, 3), seed=st.integers(0, 999))
def test_perpendicular_component(size, views, seed):
    generator = torch.Generator().manual_seed(seed)
    vector, direction = torch.randn(2, views, 3, size, size, generator=generator, dtype=torch.float64)
    part = perpendicular(vector, direction)
    # float64: sums of at most 75 products of at most 16, 75 x 16 x 1.1e-16 = 1.3e-13.
    assert (part * direction).sum((1, 2, 3)).abs().max() < 1e-12
    taken = (vector - part).flatten(1)  # a multiple of the direction, image by image
    cosine = torch.nn.functional.cosine_similarity(taken, direction.flatten(1)).abs()
    # Rounding of 4e-16 turns a vector of length 1e-9 by 4e-7, and any longer one by less.
    assert ((cosine - 1).abs() < 1e-6).logical_or(taken.norm(dim=1) < 1e-9).all()
    torch.testing.assert_close(perpendicular(vector, torch.zeros_like(direction)), vector)
