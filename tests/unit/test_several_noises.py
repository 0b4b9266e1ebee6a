# SPDX-License-Identifier: GPL-3.0-or-later
"""Several noises a view: the mean of their gradients, from one call of the denoiser, equal for any group of views."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from dreamwright.backend.config.schema import Config, GuidanceConfig
from dreamwright.backend.config.usage import duration_settings, identity_settings, memory_settings
from dreamwright.backend.guidance.sds import ScoreDistillation, distill_image
from dreamwright.backend.runtime.rng import PerViewGenerator
from tests.testing.gaussian_priors import conditioned, means, seeded
from tests.testing.oracles import GaussianOracle, KnownImages, cosine_schedule

GUIDED = GuidanceConfig(omega=7.0)


class Recording(GaussianOracle):
    """Keeps the arguments of every call."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.calls = []

    def predict_noise(self, z_t, t, conditioning):
        self.calls.append((z_t, t, conditioning.tensors["mean"]))
        return super().predict_noise(z_t, t, conditioning)


def times_of(noises: int, views: int, seed: int, **settings) -> torch.Tensor:
    config = GuidanceConfig(noises=noises, **settings)
    return ScoreDistillation(GaussianOracle(means(), 0.3), config).times(views, seeded(seed), 0.0)


def test_one_noise_is_eq_3_with_the_random_stream_that_it_always_had():
    """Bitwise: n times by rand, then n noises by randn, and 2 sigma^2 (eps_hat - eps) of one noise a view."""
    oracle = GaussianOracle(means(), 0.3)
    image, chosen = torch.rand(2, 3, 4, 4, generator=seeded(1)), conditioned(oracle, ["a", "b"])
    got = ScoreDistillation(oracle, GUIDED).gradient(image, None, chosen, seeded(7), 0.0).gradient
    draws = seeded(7)
    t = 0.02 + (0.98 - 0.02) * torch.rand(2, generator=draws)
    eps = torch.randn(2, 3, 4, 4, generator=draws)
    alpha, sigma = (level.view(2, 1, 1, 1) for level in cosine_schedule(t))
    z_t = alpha * (2 * image - 1) + sigma * eps
    both = (2, 1, 1, 1)
    outputs = oracle.predict_noise(z_t.repeat(both), t.repeat(2), oracle.embed(["a", "b", "", ""]))
    expected = 2 * (sigma.square() * ((1 + 7.0) * outputs[:2] - 7.0 * outputs[2:] - eps))
    assert torch.equal(got, expected)


@pytest.mark.parametrize("noises", [1, 4, 16])
def test_variance_falls_with_the_number_of_noises(noises):
    """At one time t and a Gaussian prior the gradient is c (x - m_hat) - b eps, b = 2 sigma^2 alpha^2 s^2 / v, so that
    its mean stays and its variance is b^2 / noises."""
    center, std, views, time = means(), 0.8, 1000, 0.5
    config = dataclasses.replace(GUIDED, t_min=time, t_max=time, t_max_end=time, noises=noises)
    oracle = GaussianOracle(center, std)
    image = torch.rand(3, 4, 4, generator=seeded(1))
    batch, chosen = image.expand(views, -1, -1, -1), conditioned(oracle, ["a"] * views)
    got = ScoreDistillation(oracle, config).gradient(batch, None, chosen, seeded(2), 0.0).gradient.double()
    alpha, sigma = (float(level) for level in cosine_schedule(torch.tensor(time, dtype=torch.float64)))
    v = alpha**2 * std**2 + sigma**2
    mean = 2 * sigma**2 * (alpha * sigma / v) * (2 * image.double() - 1 - 8 * center["a"] + 7 * center[""])
    deviation = 2 * sigma**2 * alpha**2 * std**2 / v / math.sqrt(noises)
    score = (got - mean) / deviation  # 48,000 independent unit normals
    # The mean square has a standard error of sqrt(2 / 48,000) = 0.0065, and each of 48 means one of 1: five of both.
    assert abs(float(score.square().mean()) - 1) < 0.033
    assert float(score.mean(0).abs().max()) * math.sqrt(views) < 5


@pytest.mark.parametrize("noises", [2, 5])
def test_times_of_a_view_are_one_in_each_part_of_the_range(noises):
    low, high, views = 0.2, 0.7, 4000
    drawn = times_of(noises, views, 0, t_min=low, t_max=high, t_max_end=high).view(noises, views)
    share = (drawn - low) / (high - low)
    for k, part in enumerate(share):
        # Rounding to float32, 6e-8 of t, over a width of 0.5.
        assert k / noises - 1e-6 <= float(part.min()) and float(part.max()) <= (k + 1) / noises + 1e-6
    # A part's place is uniform: mean 1/2 with a variance of 1/12, five standard errors over all draws.
    places = share * noises - torch.arange(noises).view(-1, 1)
    assert abs(float(places.mean()) - 0.5) < 5 / math.sqrt(12 * views * noises)


def test_stratified_times_vary_less_than_independent_ones():
    """Each draw varies within its part only: the mean of K times has the variance width^2 / (12 K^3), not
    width^2 / (12 K)."""
    noises, views = 4, 4000
    drawn = times_of(noises, views, 0, t_min=0.0, t_max=1.0, t_max_end=1.0).view(noises, views).mean(0)
    expected = 1 / (12 * noises**3)
    # Of 4000 values with a kurtosis below 3, the variance has a relative error of at most sqrt(2 / 4000) = 0.022: five.
    assert float(drawn.var()) == pytest.approx(expected, rel=0.11)
    assert float(drawn.mean()) == pytest.approx(0.5, abs=5 * math.sqrt(expected / views))


def test_one_call_holds_all_views_of_a_draw_together():
    """Rows of each prompt: the views of draw 0, then those of draw 1; every draw has a noise of its own."""
    oracle = Recording(means(), 0.3)
    image = torch.rand(2, 3, 4, 4, generator=seeded(1))
    config = dataclasses.replace(GUIDED, noises=3)
    result = ScoreDistillation(oracle, config).gradient(image, None, conditioned(oracle, ["a", "b"]), seeded(2), 0.0)
    assert result.gradient.shape == image.shape
    ((z_t, t, mean),) = oracle.calls
    assert len(z_t) == len(t) == 12
    a, b, empty = (means()[prompt] for prompt in ("a", "b", ""))
    assert torch.equal(mean, torch.stack([a, b] * 3 + [empty] * 6))
    assert torch.equal(z_t[:6], z_t[6:]) and torch.equal(t[:6], t[6:])
    alpha, sigma = (level.view(6, 1, 1, 1) for level in cosine_schedule(t[:6]))
    noise = (z_t[:6] - alpha * (2 * image - 1).repeat(3, 1, 1, 1)) / sigma
    draws = seeded(2)
    torch.rand(6, generator=draws)
    expected = torch.randn(2, 3, 3, 4, 4, generator=draws)  # by view, then by draw
    # float32: roundings of 2e-7 of values of up to 4, over a sigma of at least 0.03.
    torch.testing.assert_close(noise, expected.transpose(0, 1).flatten(0, 1), rtol=0, atol=1e-4)
    assert result.scalars["t"] == pytest.approx(float(t[:6].mean()), rel=1e-6)


class InPairs(Recording):
    """A model that denoises two views of one object together."""

    def with_cameras(self, conditioning, cameras):
        return conditioning.with_tensors(camera=cameras)

    def views_together(self, conditioning):
        return 2


def test_views_that_are_denoised_together_share_the_times_of_each_draw():
    """Two pairs of views with three noises: within a draw one time a pair, from the draw's third of the range, and the
    views of a pair in adjacent rows."""
    oracle = InPairs(means(), 0.3)
    config = GuidanceConfig(omega=0.0, noises=3, t_min=0.2, t_max=0.8, t_max_end=0.8)
    image, cameras, seen = torch.rand(4, 3, 4, 4, generator=seeded(1)), torch.arange(4), []
    predict = oracle.predict_noise
    oracle.predict_noise = lambda z, t, c: seen.append(c.tensors["camera"]) or predict(z, t, c)
    ScoreDistillation(oracle, config).gradient(image, cameras, conditioned(oracle, ["a"] * 4), seeded(2), 0.0)
    ((_, t, _),) = oracle.calls
    assert seen[0].tolist() == [0, 1, 2, 3] * 3
    pairs = t.view(3, 2, 2)  # draws, pairs, views of a pair
    assert torch.equal(pairs[..., 0], pairs[..., 1]) and len(pairs[..., 0].unique()) == 6
    for k in range(3):
        # Rounding to float32, 6e-8 of t.
        assert 0.2 + 0.2 * k - 1e-6 <= float(pairs[k].min()) and float(pairs[k].max()) <= 0.4 + 0.2 * k + 1e-6


def test_groups_of_views_draw_what_one_group_draws():
    """Two processes, or two chunks, with two views each against one with four."""
    oracle = GaussianOracle(means(), 0.3)
    guidance = ScoreDistillation(oracle, dataclasses.replace(GUIDED, noises=3))
    image, prompts = torch.rand(4, 3, 4, 4, generator=seeded(1)), ["a", "b", "a", ""]
    whole = guidance.gradient(image, None, conditioned(oracle, prompts), seeded(5), 0.0).gradient
    for chunk in (slice(0, 2), slice(2, 4)):
        generator = PerViewGenerator.of(4, chunk, 5)
        part = guidance.gradient(image[chunk], None, conditioned(oracle, prompts[chunk]), generator, 0.0).gradient
        # The same numbers in the same order; vector instructions may round a row of another batch differently.
        torch.testing.assert_close(part, whole[chunk], rtol=1e-4, atol=1e-5)


def test_scalars_are_means_over_views_and_noises():
    """A model that knows the image leaves w(t) alpha / sigma (x - target), whatever the noise."""
    oracle = KnownImages(lambda cameras: cameras.view(-1, 1, 1, 1).expand(-1, 3, 4, 4), image_size=4)
    cameras, image = torch.tensor([0.1, 0.9]), torch.rand(2, 3, 4, 4, generator=seeded(0))
    guidance = ScoreDistillation(oracle, dataclasses.replace(GUIDED, weighting="uniform", noises=4))
    result = guidance.gradient(image, cameras, conditioned(oracle, ["x"] * 2), seeded(1), 0.0)
    alpha, sigma = cosine_schedule(guidance.times(2, seeded(1), 0.0))
    factor = (alpha / sigma).view(4, 2).mean(0).view(2, 1, 1, 1)
    expected = 4 * factor * (image - cameras.view(2, 1, 1, 1))
    # float32: values of about 1 have a few roundings of 6e-8, times 4 / sigma of at most 4 / 0.03: 1e-5 each.
    torch.testing.assert_close(result.gradient, expected, rtol=1e-5, atol=5e-5)
    assert result.scalars["gradient_norm"] == pytest.approx(float(expected.flatten(1).norm(dim=1).mean()), rel=1e-4)
    # The clean image is (z - sigma eps) / alpha, with 1 / alpha of at most 32: 32 x 6e-8 x a few.
    difference = float((2 * (image - cameras.view(2, 1, 1, 1))).square().mean().sqrt())
    assert result.scalars["clean_error"] == pytest.approx(difference, rel=2e-5)


def test_the_mean_over_noises_is_clipped():
    oracle = GaussianOracle(means(), 0.3)
    image, chosen = torch.rand(2, 3, 4, 4, generator=seeded(0)), conditioned(oracle, ["a", "b"])
    config = dataclasses.replace(GUIDED, noises=4)
    free = ScoreDistillation(oracle, config).gradient(image, None, chosen, seeded(0), 0.0).gradient
    limit = float(free.flatten(1).norm(dim=1).min()) / 2
    config = dataclasses.replace(config, gradient_clip=limit)
    clipped = ScoreDistillation(oracle, config).gradient(image, None, chosen, seeded(0), 0.0).gradient
    norms = free.flatten(1).norm(dim=1).view(2, 1, 1, 1)
    torch.testing.assert_close(clipped, free * limit / norms)


def test_images_are_distilled_with_several_noises():
    """Figure 2's plain images: the last step is nearer to the prior's mean than the first, by one call a step."""
    oracle = Recording(means(), 0.1)
    config = GuidanceConfig(omega=0.0, noises=4)
    *_, last = distill_image(oracle, conditioned(oracle, ["a"]), config, "free", 100, 0.2, seeded(0))
    assert [len(call[1]) for call in oracle.calls] == [4] * 100
    # Adam's steps of 0.2 reach any pixel of the mean, within 0.2 to 0.8, in 100 steps; the noise of the gradient
    # (a deviation of 0.1 x 0.5, over sqrt(4)) is averaged over the last tenth: 0.03 is more than three times it.
    assert (last.image[0] - (means()["a"] + 1) / 2).abs().max() < 0.03


def test_the_number_of_noises_is_a_setting_of_score_distillation():
    """It decides the result and the time of a step of runs with a diffusion model, refinements too, and of no other.

    No advice about memory names it to a run that is resumed, because it changes the result."""
    for scene in ("field", "mesh"):
        assert identity_settings(Config(), scene)["guidance"]["noises"] == 1
        assert duration_settings(Config(), scene)["guidance.noises"] == 1
    clip = dataclasses.replace(Config(), run=dataclasses.replace(Config().run, method="dream-fields"))
    assert "noises" not in identity_settings(clip)["guidance"]
    assert not any(setting.startswith("guidance.noises") for setting in memory_settings())
