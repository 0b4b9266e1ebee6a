# SPDX-License-Identifier: GPL-3.0-or-later
"""SDS and CSD against closed forms on Gaussian priors, and what holds for all rules of distillation."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.schema import Config
from dreamwright.backend.config.setting import RULES
from dreamwright.backend.config.usage import check_settings_used, duration_settings, identity_settings
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.runtime.rng import PerViewGenerator
from dreamwright.backend.text.conditioning import Negatives
from dreamwright.backend.text.prompts import PromptEmbeddings
from tests.testing.gaussian_priors import conditioned, means, seeded
from tests.testing.oracles import GaussianOracle, KnownImages, cosine_schedule
from tests.testing.rules_on_priors import GUIDED, STD, PointMass, Recording, at, gradient, levels

# --- SDS


def test_sds_is_bit_by_bit_what_it_was():
    """Times, then the noise of each view, one call for both prompts, (1 + omega) c - omega u, the mean over draws."""
    oracle, image = GaussianOracle(means(), STD), torch.rand(2, 3, 4, 4, generator=seeded(1))
    config = dataclasses.replace(GUIDED, noises=3)
    found = gradient(config, oracle, image, ["a", "b"], seed=2, progress=0.4)
    draws = seeded(2)
    uniform = torch.rand(2, 3, generator=draws)
    t = (0.02 + (0.98 - 0.02) * ((torch.arange(3) + uniform) / 3).T.flatten()).float()
    noise = torch.randn(2, 3, 3, 4, 4, generator=draws).transpose(0, 1).flatten(0, 1)
    alpha, sigma = (level.view(-1, 1, 1, 1) for level in cosine_schedule(t))
    clean, chosen = (2 * image - 1).repeat(3, 1, 1, 1), conditioned(oracle, ["a", "b"] * 3)
    z_t = alpha * clean + sigma * noise
    c, u = (oracle.predict_noise(z_t, t, part) for part in (chosen.positive, chosen.negative))
    residual = (1.0 + 7.0) * c - 7.0 * u - noise
    expected = 2 * (sigma.square() * residual).unflatten(0, (3, 2)).mean(0)
    assert torch.equal(found.gradient, expected)
    error = (sigma / alpha.clamp(min=1e-6) * residual).square().mean().sqrt()
    assert found.scalars["clean_error"] == float(error) and found.scalars["t"] == float(t.mean())


def test_clean_weight_leads_to_the_predicted_image():
    """w(t) = sigma / alpha makes the gradient 2 (x - x0_hat), whatever t and noise are."""
    oracle = KnownImages(lambda cameras: cameras.view(-1, 1, 1, 1).expand(-1, 3, 4, 4), image_size=4)
    cameras, image = torch.tensor([0.1, 0.9]), torch.rand(2, 3, 4, 4, generator=seeded(0))
    guidance = ScoreDistillation(oracle, dataclasses.replace(GUIDED, weighting="clean", noises=2))
    found = guidance.gradient(image, cameras, conditioned(oracle, ["x"] * 2), seeded(1), 0.0).gradient
    # float32: a few roundings of values of up to 4.
    torch.testing.assert_close(found, 4 * (image - cameras.view(2, 1, 1, 1)), rtol=1e-5, atol=1e-5)


# --- CSD


def test_csd_is_the_classifiers_part_of_sds():
    """SDS with omega less SDS without guidance, of the same draws."""
    oracle, image = GaussianOracle(means(), STD), torch.rand(2, 3, 4, 4, generator=seeded(1))
    config = dataclasses.replace(GUIDED, noises=2)
    csd = gradient(dataclasses.replace(config, rule="csd"), oracle, image, ["a", "b"]).gradient
    guided, plain = (
        gradient(dataclasses.replace(config, omega=omega), oracle, image, ["a", "b"]).gradient for omega in (7.0, 0.0)
    )
    # float32: predictions of up to 6 times 1 + 2 omega, each with a few roundings of 6e-8, times the 2 of the chain.
    torch.testing.assert_close(csd, guided - plain, rtol=0, atol=1e-4)


def test_csd_has_neither_noise_nor_a_fixed_point_on_gaussians():
    """2 w omega alpha sigma / v (m_u - m_c) for every image and every noise: it pushes on for ever.

    SDS with omega stops at (1 + omega) m_c - omega m_u.
    """
    oracle, center = GaussianOracle(means(), STD), means()
    alpha, sigma, v = levels(0.4)
    expected = (2 * sigma**2 * 7 * alpha * sigma / v * (center[""] - center["a"]).double())[None]
    for seed in range(3):
        image = 2 * torch.randn(1, 3, 4, 4, generator=seeded(seed))
        found = gradient(at(0.4, rule="csd"), oracle, image, ["a"], seed).gradient.double()
        # float32: predictions of up to 20 have roundings of 2e-6, times 2 w omega = 5; ten times that.
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_csd_with_a_negative_prompt():
    """omega ((eps_c - eps_0) - s (eps_n - eps_0)), s from 1 to `csd_negative_end`; 3 rows a view where s is not 1."""
    oracle, center = Recording(means(), STD), means()
    alpha, sigma, v = levels(0.4)
    chosen = dataclasses.replace(conditioned(oracle, ["a"], negative="b"), empty=oracle.embed([""]))
    image, factor = torch.rand(1, 3, 4, 4, generator=seeded(0)), 2 * sigma**2 * 7 * alpha * sigma / v
    for progress, share, rows in ((0.0, 1.0, 2), (0.5, 0.75, 3), (1.0, 0.5, 3)):
        found = gradient(at(0.4, rule="csd"), oracle, image, ["a"], conditioning=chosen, progress=progress).gradient
        towards = (center[""] - center["a"]) - share * (center[""] - center["b"])
        torch.testing.assert_close(found.double(), (factor * towards.double())[None], rtol=0, atol=1e-4)  # as above
        assert oracle.rows[-1] == rows


def test_csd_leads_away_from_the_opposite_view_only_perpendicularly():
    oracle, image = Recording(means(), STD), torch.rand(1, 3, 4, 4, generator=seeded(0))
    config = at(0.4, rule="csd", opposite_weight=1.5)
    plain = gradient(config, oracle, image, ["a"]).gradient
    chosen = dataclasses.replace(conditioned(oracle, ["a"]), opposite=Negatives.of(oracle.embed(["b"]), 1.5))
    found = gradient(config, oracle, image, ["a"], conditioning=chosen).gradient
    assert oracle.rows == [2, 3]
    change = (found - plain).double()
    # float32: both have 48 numbers with a few roundings of 6e-8 each, of predictions three times as large.
    assert abs(float((change * plain).sum())) < 1e-5 * float(change.norm() * plain.norm())
    assert change.norm() > 0.1 * plain.norm()


def test_the_empty_prompt_is_encoded_where_csd_needs_it():
    """Beside a negative prompt only, and for no other rule."""
    oracle = GaussianOracle(means(), STD)
    for rule, negative, needed in (("csd", "b", True), ("csd", "", False), ("sds", "b", False)):
        config = dataclasses.replace(GUIDED, rule=rule, negative_prompt=negative)
        chosen = PromptEmbeddings(oracle, "a", config).for_cameras([0.0, 90.0], [10.0, 10.0])
        assert (chosen.empty is not None) == needed
        assert torch.equal(chosen.negative.tensors["mean"][0], means()[negative])
        if chosen.empty is not None:
            assert torch.equal(chosen.empty.tensors["mean"], means()[""].expand(2, -1, -1, -1))


# --- all rules


@pytest.mark.parametrize("rule", RULES)
def test_rows_of_the_network(rule):
    """Rows of the frozen network for two views of three draws at t = 0.4, and of VSD's estimate."""
    oracle, estimate = Recording(means(), STD), PointMass()
    image = torch.rand(2, 3, 4, 4, generator=seeded(1))
    config = at(0.4, rule=rule, noises=3, inversion_steps=5)
    gradient(config, oracle, image, ["a", "b"], estimate=estimate)
    expected = {"sds": [12], "csd": [12], "sdi": [12, 12, 12], "vsd": [12]}
    assert oracle.rows == expected[rule]


@pytest.mark.parametrize("rule", RULES)
def test_groups_of_views_draw_what_one_group_draws(rule):
    """Two processes, or two chunks, with two views each against one with four."""
    oracle, image = GaussianOracle(means(), STD), torch.rand(4, 3, 4, 4, generator=seeded(1))
    guidance = ScoreDistillation(oracle, dataclasses.replace(GUIDED, rule=rule, noises=2), PointMass())
    prompts = ["a", "b", "a", ""]
    whole = guidance.gradient(image, None, conditioned(oracle, prompts), seeded(5), 0.0).gradient
    for chunk in (slice(0, 2), slice(2, 4)):
        generator = PerViewGenerator.of(4, chunk, 5)
        part = guidance.gradient(image[chunk], None, conditioned(oracle, prompts[chunk]), generator, 0.0).gradient
        # The same numbers in the same order; vector instructions may round a row of another batch differently, and the
        # inversion weighs predictions with 1 + 2 x 8.5 in each of ten steps.
        torch.testing.assert_close(part, whole[chunk], rtol=1e-3, atol=1e-3 * float(whole.abs().max()))


@pytest.mark.parametrize("rule", RULES)
def test_no_graph_is_built(rule):
    """The image's own graph is not used, and the gradient has none."""
    oracle, theta = GaussianOracle(means(), STD), torch.rand(1, 3, 4, 4).requires_grad_(True)
    predict = oracle.predict_noise
    oracle.predict_noise = lambda z, t, c: predict(z, t, c) if not z.requires_grad else pytest.fail("a graph")
    config = dataclasses.replace(GUIDED, rule=rule)
    assert not gradient(config, oracle, theta * 1.0, ["a"], estimate=PointMass()).gradient.requires_grad
    assert theta.grad is None


def test_settings_of_another_rule_are_refused():
    for setting, rule in (("lora_rank=8", "vsd"), ("inversion_steps=4", "sdi"), ("csd_negative=0.5", "csd")):
        name = f"guidance.{setting.split('=')[0]}"
        chosen = apply_settings(Config(), [f"guidance.{setting}", f"guidance.rule={rule}"])
        check_settings_used(chosen)
        assert name.removeprefix("guidance.") in identity_settings(chosen)["guidance"]
        other = apply_settings(chosen, ["guidance.rule=sds"])
        with pytest.raises(ConfigError, match=f"{name} means nothing to guidance.rule=sds, but to {rule}"):
            check_settings_used(other)
        assert name.removeprefix("guidance.") not in identity_settings(other)["guidance"]
        assert name not in duration_settings(other)


def test_contradictions_are_refused_in_one_line():
    oracle = GaussianOracle(means(), STD)
    for settings, what in (
        (["guidance.rule=csd", "guidance.omega=0"], "leaves no gradient"),
        (["guidance.rule=vsd", "model.compile=default"], "model.compile is default"),
        (["guidance.rule=vsd", "model.offload=blocks"], "model.offload is blocks"),
        (["guidance.rule=ism"], "allowed are sds, csd, sdi, vsd"),
    ):
        with pytest.raises(ConfigError, match=what) as refusal:
            apply_settings(Config(), settings)
        assert "\n" not in str(refusal.value)
    with pytest.raises(ConfigError, match="nothing here estimates the score"):
        ScoreDistillation(oracle, dataclasses.replace(GUIDED, rule="vsd"))
    with pytest.raises(ConfigError, match="leaves no gradient"):
        ScoreDistillation(oracle, dataclasses.replace(GUIDED, rule="csd", omega=0.0))
