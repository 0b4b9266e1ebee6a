# SPDX-License-Identifier: GPL-3.0-or-later
"""Variational Score Distillation with estimates of known scores: where it is SDS, where it is zero, what it keeps."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dreamwright.backend.config.schema import GuidanceConfig
from dreamwright.backend.guidance.sds import ScoreDistillation, distill_image
from tests.testing.gaussian_priors import conditioned, means, seeded
from tests.testing.oracles import GaussianOracle, MixtureOracle
from tests.testing.rules_on_priors import GUIDED, STD, Exact, PointMass, at, gradient


def test_vsd_of_one_image_is_sds():
    """Wang et al. 2023, section 3.3: where the renders are one image, the exact score is that of the noise drawn."""
    oracle, image = GaussianOracle(means(), STD), torch.rand(2, 3, 4, 4, generator=seeded(1))
    config = dataclasses.replace(GUIDED, noises=2)
    vsd = gradient(dataclasses.replace(config, rule="vsd"), oracle, image, ["a", "b"], estimate=PointMass()).gradient
    # float32: the noise is (z - alpha x) / sigma, with roundings of 2e-7 over a sigma of 0.03, times 2.
    torch.testing.assert_close(vsd, gradient(config, oracle, image, ["a", "b"]).gradient, rtol=0, atol=5e-5)


def test_vsd_is_zero_where_the_renders_are_the_prior():
    """At every image, not at the mean only: nothing is left to gain, while SDS leads on to the mean."""
    oracle, image = GaussianOracle(means(), STD), torch.rand(2, 3, 4, 4, generator=seeded(1))
    config = dataclasses.replace(GUIDED, omega=0.0)
    vsd = gradient(dataclasses.replace(config, rule="vsd"), oracle, image, ["a", "b"], estimate=Exact(oracle)).gradient
    assert vsd.abs().max() == 0
    assert gradient(config, oracle, image, ["a", "b"]).gradient.abs().max() > 0.01


def particles(
    rule: str, oracle, start: torch.Tensor, t: float, rate: float, steps: int, fitted: bool = False
) -> torch.Tensor:
    """x of many one-pixel images (n, 3, 1, 1) after plain gradient steps, as the images hold it.

    VSD's estimate is exact for the prior, or with `fitted` for the Gaussian of the images as they are.
    """
    config = at(t, rule=rule, omega=0.0, weighting="uniform")
    image, chosen, estimate = (start + 1) / 2, conditioned(oracle, ["a"] * len(start)), Exact(oracle)
    guidance, generator = ScoreDistillation(oracle, config, estimate), seeded(3)
    for _ in range(steps):
        if fitted:
            x = 2 * image - 1
            own = GaussianOracle(x.mean(0), float((x - x.mean(0)).square().mean().sqrt()))
            estimate.predict = lambda z_t, draws, own=own: own.predict_noise(z_t, draws.t, own.embed([""] * len(z_t)))
        image = image - rate * guidance.gradient(image, None, chosen, generator, 0.0).gradient
    return 2 * image - 1


def test_vsd_keeps_the_variety_that_sds_loses():
    """300 images of a Gaussian prior, from a spread of 0.1 and of 0.6: VSD ends at the prior's, SDS at its mean."""
    oracle = GaussianOracle(means(1), STD)
    for spread in (0.1, 0.6):
        start = spread * torch.randn(300, 3, 1, 1, generator=seeded(0))
        vsd = particles("vsd", oracle, start, 0.2, 0.02, 80, fitted=True)
        sds = particles("sds", oracle, start, 0.2, 0.02, 80)
        # VSD's noise is (1 / v_p - 1 / v_q) z and vanishes at the end: a rate of 0.12 a step leaves e^-9 of the error.
        assert float((vsd - vsd.mean(0)).square().mean().sqrt()) == pytest.approx(STD, abs=0.02)
        assert float((vsd.mean(0) - means(1)["a"]).abs().max()) < 0.02
        # SDS: rate 0.13 a step, noise 0.08 x 0.46 in it, so a spread of 0.037 / sqrt(0.27) = 0.07; twice that.
        assert float((sds - sds.mean(0)).square().mean().sqrt()) < 0.14
        assert float((sds.mean(0) - means(1)["a"]).abs().max()) < 0.05  # four times 0.07 / sqrt(300), and e^-10


def test_sds_seeks_modes_of_a_mixture_and_vsd_leaves_its_samples():
    """Two modes, three deviations apart to either side of 0: SDS ends nearer to one than the prior's samples are."""
    centers, std = torch.stack([torch.full((3, 1, 1), value) for value in (-0.5, 0.5)]), 0.15
    oracle = MixtureOracle(centers, torch.tensor([0.5, 0.5]), std)
    mode = torch.arange(300) % 2
    samples = centers[mode] + std * torch.randn(300, 3, 1, 1, generator=seeded(0))

    def from_mode(x: torch.Tensor) -> float:
        return float((x[:, None] - centers).square().flatten(2).mean(2).amin(1).mean().sqrt())

    sds = particles("sds", oracle, samples, 0.12, 0.01, 60)
    # Rate 0.13 a step, noise 0.04 x 0.38 in it, so a spread of 0.015 / sqrt(0.26) = 0.03 remains; twice that.
    assert from_mode(sds) < 0.06 < 0.12 < from_mode(samples)
    assert torch.equal((sds.mean((1, 2, 3)) > 0).long(), mode)  # in both, where each was
    assert torch.equal(particles("vsd", oracle, samples, 0.12, 0.01, 3), 2 * ((samples + 1) / 2) - 1)


def test_plain_images_follow_every_rule():
    """Figure 2's images by each rule: nearer to the mean of a Gaussian than at the start."""
    oracle, center = GaussianOracle(means(), 0.1), (means()["a"] + 1) / 2
    for rule in ("sds", "sdi", "vsd"):
        config = GuidanceConfig(rule=rule, omega=0.0, inversion_omega=0.0, inversion_eta=0.0, inversion_steps=4)
        chosen, estimate = conditioned(oracle, ["a"]), PointMass()
        events = distill_image(oracle, chosen, config, "free", 60, 0.1, seeded(0), estimate)
        steps = [event.image[0] for event in events]
        assert (steps[-1] - center).abs().mean() < 0.3 * (steps[0] - center).abs().mean()
