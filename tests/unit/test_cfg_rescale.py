# SPDX-License-Identifier: GPL-3.0-or-later
"""CFG rescale of x0 (Lin et al. 2023, as in MVDream's code): hand-computed, in float64, and through the gradient."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.backend.config.schema import GuidanceConfig
from dreamwright.backend.guidance.classifier_free import guided_prediction
from dreamwright.backend.guidance.prediction import PREDICTION_TYPES, clean_from, output_from, rescaled
from dreamwright.backend.guidance.sds import ScoreDistillation
from tests.testing.gaussian_priors import conditioned, means, seeded
from tests.testing.oracles import GaussianOracle

KINDS = st.sampled_from(PREDICTION_TYPES)


class Together(GaussianOracle):
    """A denoiser that sees two images at a time."""

    def with_cameras(self, conditioning, cameras):
        return conditioning

    def views_together(self, conditioning) -> int:
        return 2


def levels(angle: float) -> tuple[torch.Tensor, torch.Tensor]:
    return (torch.tensor(value, dtype=torch.float64) for value in (math.cos(angle), math.sin(angle)))


def outputs(kind, angle: float, seed: int, n: int = 4) -> tuple[torch.Tensor, ...]:
    """Guided and conditional outputs of a kind for two x0 at one z_t, all float64, and alpha, sigma."""
    draw = seeded(seed)
    guided, conditional, z_t = (torch.randn(n, 3, 4, 4, generator=draw, dtype=torch.float64) for _ in range(3))
    alpha, sigma = levels(angle)
    pair = (output_from(kind, x, (z_t - alpha * x) / sigma, alpha, sigma) for x in (3 * guided + 0.5, conditional))
    return *pair, z_t, alpha, sigma


@pytest.mark.parametrize(("share", "scale"), [(0.0, 1.0), (0.5, 2 / 3), (1.0, 1 / 3)])
def test_hand_computed_numbers(share: float, scale: float) -> None:
    """Deviations of 3 and 1: x0 = 4 +- 3 is multiplied by 1/3, its mean with it, as far as the share says."""
    conditional = torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64).view(1, 1, 2, 2)
    guided = 4 + 3 * conditional
    alpha, sigma = levels(0.7)
    got = rescaled("sample", guided, conditional, torch.zeros_like(guided), alpha, sigma, share)
    # Float64: numbers of 7 with a few roundings of 1e-15.
    torch.testing.assert_close(got, scale * guided, rtol=0, atol=1e-14)


@settings(max_examples=25, deadline=None)
@given(KINDS, st.floats(0.1, 1.4), st.sampled_from([1, 2, 4]), st.integers(0, 99))
def test_share_one_restores_the_deviation_of_the_conditional(kind, angle, together, seed) -> None:
    guided, conditional, z_t, alpha, sigma = outputs(kind, angle, seed)
    full = rescaled(kind, guided, conditional, z_t, alpha, sigma, 1.0, together)
    clean, wanted = (clean_from(kind, part, z_t, alpha, sigma) for part in (full, conditional))
    # Float64: x0 of up to 15 is divided by alpha of at least 0.17, with some roundings of 2e-15 each.
    torch.testing.assert_close(
        clean.reshape(4 // together, -1).std(1), wanted.reshape(4 // together, -1).std(1), rtol=0, atol=1e-12
    )


@settings(max_examples=25, deadline=None)
@given(KINDS, st.floats(0.1, 1.4), st.floats(0, 1), st.integers(0, 99))
def test_each_kind_of_prediction_gives_the_same_x0(kind, angle, share, seed) -> None:
    """Against the published form: share x0 (std_c + 1e-8) / (std + 1e-8) + (1 - share) x0, over a set of two."""
    guided, conditional, z_t, alpha, sigma = outputs(kind, angle, seed)
    got = clean_from(kind, rescaled(kind, guided, conditional, z_t, alpha, sigma, share, 2), z_t, alpha, sigma)
    clean, wanted = (clean_from(kind, part, z_t, alpha, sigma).view(2, 2, 3, 4, 4) for part in (guided, conditional))
    factor = (wanted.std((1, 2, 3, 4), keepdim=True) + 1e-8) / (clean.std((1, 2, 3, 4), keepdim=True) + 1e-8)
    expected = (share * factor * clean + (1 - share) * clean).flatten(0, 1)
    # The published 1e-8 changes x0 of up to 15 by 15e-8 at deviations near 1; roundings are far below.
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_no_share_is_plain_guidance_to_the_bit_and_a_flat_image_stays_finite() -> None:
    oracle, t = GaussianOracle(means(), 0.3), torch.tensor([0.3, 0.7])
    z_t = torch.randn(2, 3, 4, 4, generator=seeded(0))
    chosen = conditioned(oracle, ["a", "b"])
    call = (oracle, z_t, t, chosen.positive, chosen.negative, 7.0)
    assert torch.equal(guided_prediction(*call)[1], guided_prediction(*call, rescale=0.0)[1])
    assert not torch.allclose(guided_prediction(*call)[1], guided_prediction(*call, rescale=0.5)[1], atol=0.1)
    flat, (alpha, sigma) = torch.ones(1, 3, 4, 4, dtype=torch.float64), levels(0.7)
    assert torch.isfinite(rescaled("sample", flat, flat, flat, alpha, sigma, 1.0)).all()


@pytest.mark.parametrize(("oracle_type", "together"), [(GaussianOracle, 1), (Together, 2)])
def test_gradient_follows_the_rescaled_x0_of_views_seen_together(oracle_type, together: int) -> None:
    """With w = 1 the gradient is 2 alpha / sigma (x - x0_hat), for any x0_hat."""
    t, omega, std = 0.6, 7.0, 0.3
    config = GuidanceConfig(omega=omega, rescale=1.0, weighting="uniform", t_min=t, t_max=t, t_max_end=t)
    oracle, image = oracle_type(means(), std), torch.rand(2, 3, 4, 4, generator=seeded(1))
    got = ScoreDistillation(oracle, config).gradient(image, None, conditioned(oracle, ["a", "b"]), seeded(0), 0.0)

    stream = seeded(0)
    torch.rand(2, generator=stream)  # the times are drawn first
    eps, x = torch.randn(2, 3, 4, 4, generator=stream).double(), 2 * image.double() - 1
    alpha, sigma = levels(math.pi * t / 2)
    z, variance = alpha * x + sigma * eps, alpha**2 * std**2 + sigma**2
    # x0_hat of a Gaussian prior: (alpha std^2 z + sigma^2 m) / variance, guided like m.
    center = {name: mean.double() for name, mean in means().items()}
    conditional = (alpha * std**2 * z + sigma**2 * torch.stack([center["a"], center["b"]])) / variance
    unconditional = (alpha * std**2 * z + sigma**2 * center[""]) / variance
    guided = (1 + omega) * conditional - omega * unconditional
    sets = (2 // together, -1)
    ratio = conditional.reshape(sets).std(1) / guided.reshape(sets).std(1)
    shrunk = ratio.repeat_interleave(together).view(-1, 1, 1, 1) * guided
    expected = 2 * alpha / sigma * (x - shrunk)
    # Float32: guided numbers of up to 10 with some roundings of 6e-7, times 2 alpha / sigma = 1.5.
    torch.testing.assert_close(got.gradient.double(), expected, rtol=0, atol=3e-5)
    plain = dataclasses.replace(config, rescale=0.0)
    unscaled = ScoreDistillation(oracle, plain).gradient(image, None, conditioned(oracle, ["a", "b"]), seeded(0), 0.0)
    assert not torch.allclose(unscaled.gradient, got.gradient, atol=0.5)
