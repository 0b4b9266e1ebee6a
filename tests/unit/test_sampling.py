# SPDX-License-Identifier: GPL-3.0-or-later
"""Ancestral sampling against diffusers' own scheduler and against priors whose samples are known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler

from dreamwright.backend.guidance.sampling import ancestral_sample, ancestral_step
from tests.testing.gaussian_priors import ConvertedPrediction, means, seeded
from tests.testing.oracles import GaussianOracle, MixtureOracle, cosine_schedule


@pytest.mark.parametrize("index, previous", [(999, 949), (500, 480), (40, 20), (1, 0)])
def test_ancestral_step_equals_ddpm_scheduler(index, previous):
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", clip_sample=False)
    scheduler.timesteps, scheduler.num_inference_steps = torch.tensor([index, previous]), 2
    z_t, eps = torch.randn(2, 2, 3, 4, 4, generator=seeded(0))
    # The scheduler draws its noise from a generator; `ancestral_step` gets the same draw.
    expected = scheduler.step(eps, index, z_t, generator=seeded(9))
    noise = torch.randn(z_t.shape, generator=seeded(9))
    levels = [(math.sqrt(a), math.sqrt(1 - a)) for a in scheduler.alphas_cumprod[[index, previous]].double().tolist()]
    ours = ancestral_step(z_t, expected.pred_original_sample, noise, *levels)
    # diffusers' float32 levels are products of up to 1000 factors: 6e-5, enlarged by 1 / sigma.
    torch.testing.assert_close(ours, expected.prev_sample, rtol=2e-4, atol=2e-4)


def test_ancestral_step_keeps_the_marginals():
    """z_t = alpha_t x + sigma_t eps for one x, stepped with the true x, has mean alpha_s x and deviation sigma_s."""
    x = torch.full((200_000,), 0.7)
    (now, then) = [tuple(float(c) for c in cosine_schedule(torch.tensor(t))) for t in (0.7, 0.4)]
    z_t = now[0] * x + now[1] * torch.randn(len(x), generator=seeded(0))
    z_s = ancestral_step(z_t, x, torch.randn(len(x), generator=seeded(1)), now, then)
    # Four standard errors of the mean and of the deviation.
    assert float(z_s.mean()) == pytest.approx(then[0] * 0.7, abs=4 * then[1] / math.sqrt(len(x)))
    assert float(z_s.std()) == pytest.approx(then[1], rel=4 / math.sqrt(2 * len(x)))


def sampled_deviation(std: float, steps: int) -> float:
    """Standard deviation of samples of N(m, std^2): every step is linear in z, so its variance follows by hand."""
    levels = [(math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)) for t in (1 - i / steps for i in range(steps))]
    variance = 1.0
    for i, (alpha, sigma) in enumerate(levels):
        gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)  # of x0_hat = m + gain (z - alpha m)
        if i + 1 == steps:
            break
        alpha_s, sigma_s = levels[i + 1]
        added = sigma**2 - (alpha / alpha_s) ** 2 * sigma_s**2
        slope = alpha / alpha_s * sigma_s**2 / sigma**2 + alpha_s * added / sigma**2 * gain
        variance = slope**2 * variance + added * sigma_s**2 / sigma**2
    return gain * math.sqrt(variance)


def test_ancestral_samples_of_a_gaussian():
    """For every prediction type; 0.3 in the model's space is 0.15 in [0, 1].

    A finite number of steps reduces the deviation by the amount of the recurrence.
    """
    center, n = means(), 600
    for kind in (None, "sample"):
        oracle = GaussianOracle(center, 0.3)
        denoiser = oracle if kind is None else ConvertedPrediction(oracle, kind)
        images = ancestral_sample(
            denoiser, oracle.embed(["a"] * n), oracle.embed([""] * n), 0.0, 100, seeded(0), clip=False
        )
        assert images.shape == (n, 3, 4, 4)
        score = (images.mean(0) - (center["a"] + 1) / 2) / (0.15 / math.sqrt(n))
        assert score.abs().max() < 4.5  # standard errors, over 48 pixels
        # 48 deviations of 600 samples: a standard error of 1 / sqrt(2 x 600 x 48) = 0.4%.
        assert float(images.std(0).mean()) == pytest.approx(sampled_deviation(0.3, 100) / 2, rel=0.02)
    # The discretization error falls as 1 / steps: 7 / 100 and 7 / 2000 of it, with a reserve (no sampling here).
    assert sampled_deviation(0.3, 100) == pytest.approx(0.3, rel=0.07)
    assert sampled_deviation(0.3, 2000) == pytest.approx(0.3, rel=0.005)


def test_ancestral_samples_of_a_mixture():
    modes = torch.stack([torch.full((3, 2, 2), -0.6), torch.full((3, 2, 2), 0.6)])
    oracle = MixtureOracle(modes, torch.tensor([1.0, 3.0]), 0.05)
    n = 800
    images = ancestral_sample(oracle, oracle.embed([""] * n), oracle.embed([""] * n), 0.0, 100, seeded(0))
    level = images.mean((1, 2, 3))
    # A mode's images deviate by 0.025 in each of 12 values, so their means by 0.007: eleven of them. Half of the four
    # standard errors is added for the finite number of steps.
    low, high = (level - 0.2).abs() < 0.08, (level - 0.8).abs() < 0.08
    assert (low | high).all()
    assert abs(float(high.float().mean()) - 0.75) < 4 * math.sqrt(0.75 * 0.25 / n) + 0.02


def test_mixture_of_one_is_a_gaussian():
    center = means()["a"]
    mixture = MixtureOracle(center[None], torch.tensor([2.0]), 0.3)
    gaussian = GaussianOracle(center, 0.3)
    z_t, t = torch.randn(3, 3, 4, 4, generator=seeded(0)), torch.tensor([0.1, 0.5, 0.9])
    predicted = mixture.predict_noise(z_t, t, mixture.embed([""] * 3))
    torch.testing.assert_close(predicted, gaussian.predict_noise(z_t, t, gaussian.embed([""] * 3)))


def test_mixture_noise_is_minus_sigma_times_its_score():
    """Against autograd of the log density."""
    modes = torch.randn(3, 3, 2, 2, generator=seeded(0), dtype=torch.float64)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    oracle = MixtureOracle(modes, weights, 0.4)
    t = torch.tensor([0.35], dtype=torch.float64)
    alpha, sigma = cosine_schedule(t)
    z = torch.randn(1, 3, 2, 2, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    scale = (alpha**2 * 0.16 + sigma**2).sqrt()
    normal = torch.distributions.Normal(alpha * modes, scale)
    log_density = torch.logsumexp(weights.log() + normal.log_prob(z).sum((1, 2, 3)), 0)
    (score,) = torch.autograd.grad(log_density, z)
    predicted = oracle.predict_noise(z, t, oracle.embed([""]))
    torch.testing.assert_close(predicted, -sigma * score)


def test_static_clipping_keeps_samples_in_range():
    oracle = GaussianOracle(means(), 0.8)
    arguments = (oracle, oracle.embed(["a"] * 4), oracle.embed([""] * 4), 5.0, 20)
    assert ancestral_sample(*arguments, seeded(0)).aminmax() == (0.0, 1.0)
    assert ancestral_sample(*arguments, seeded(0), clip=False).max() > 1
