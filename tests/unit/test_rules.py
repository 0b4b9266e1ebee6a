# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of distillation against closed forms on Gaussian and mixture priors: fixed points, noise, network calls."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.schema import Config, GuidanceConfig
from dreamwright.backend.config.setting import RULES
from dreamwright.backend.config.usage import check_settings_used, duration_settings, identity_settings
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.guidance.sds import ScoreDistillation, distill_image
from dreamwright.backend.runtime.rng import PerViewGenerator
from dreamwright.backend.text.conditioning import Negatives
from dreamwright.backend.text.prompts import PromptEmbeddings
from tests.testing.gaussian_priors import conditioned, means, seeded
from tests.testing.oracles import GaussianOracle, KnownImages, MixtureOracle, cosine_schedule, flow_schedule

STD = 0.3
GUIDED = GuidanceConfig(omega=7.0)


def at(t: float, **changes: object) -> GuidanceConfig:
    """Settings of one time."""
    return dataclasses.replace(GUIDED, t_min=t, t_max=t, t_max_end=t, **changes)


class Recording(GaussianOracle):
    """Records the rows and the times of each call."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.times = []

    @property
    def rows(self):
        return [len(t) for t in self.times]

    def predict_noise(self, z_t, t, conditioning):
        self.times.append(t.tolist())
        return super().predict_noise(z_t, t, conditioning)


class Exact:
    """An estimate that is another oracle's prediction, and learns nothing."""

    learner = None

    def __init__(self, oracle) -> None:
        self.oracle, self.calls = oracle, []

    def predict(self, z_t, draws):
        self.calls.append(len(z_t))
        return self.oracle.predict_noise(z_t, draws.t, draws.positive)

    def learn(self, draws):
        return 0.0


class PointMass(Exact):
    """The score of renders that are one image each: eps = (z_t - alpha x) / sigma."""

    def __init__(self) -> None:
        super().__init__(None)

    def predict(self, z_t, draws):
        return (z_t - draws.alpha * draws.clean) / draws.sigma


def gradient(config, oracle, image, prompts, seed=0, estimate=None, conditioning=None, progress=0.0):
    guidance = ScoreDistillation(oracle, config, estimate)
    conditioning = conditioned(oracle, prompts) if conditioning is None else conditioning
    return guidance.gradient(image, None, conditioning, seeded(seed), progress)


def levels(t: float, schedule=cosine_schedule) -> tuple[float, float, float]:
    """alpha, sigma and the prior's noised variance."""
    alpha, sigma = (float(level) for level in schedule(torch.tensor(t, dtype=torch.float64)))
    return alpha, sigma, alpha**2 * STD**2 + sigma**2


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


# --- SDI


def inverted_residual(t: float, steps: int, schedule) -> float:
    """r of eps_hat - kappa = r (x - m), by DDIM's recursion in float64; eps(z) = sigma / v (z - alpha m)."""
    times = [k / steps for k in range(steps) if k / steps < t] + [t]
    part = 1.0  # (z - alpha m) / (x - m)
    for now, then in itertools.pairwise(times):
        (alpha, sigma, v), (alpha_then, sigma_then, _) = levels(now, schedule), levels(then, schedule)
        noise = sigma / v * part
        part = alpha_then * (part - sigma * noise) / alpha + sigma_then * noise
    alpha, sigma, v = levels(t, schedule)
    return sigma / v * part - (part - alpha) / sigma


@pytest.mark.parametrize("schedule", [cosine_schedule, flow_schedule], ids=["diffusion", "flow"])
def test_sdi_follows_ddim_to_the_time_of_each_view(schedule):
    """Without eta it has no noise: r (x - m), with DDIM's own r."""
    oracle, center = Recording(means(), STD, schedule), means()
    config = dataclasses.replace(
        GUIDED, rule="sdi", omega=0.0, inversion_omega=0.0, inversion_eta=0.0, inversion_steps=10, noises=2,
        weighting="uniform",
    )  # fmt: skip
    image = torch.rand(2, 3, 4, 4, generator=seeded(1))
    found = gradient(config, oracle, image, ["a", "b"], seed=5).gradient.double()
    t = ScoreDistillation(oracle, config).times(2, seeded(5), 0.0).tolist()
    mean = torch.stack([center["a"], center["b"]]).double()
    for view in range(2):
        r = sum(inverted_residual(time, 10, schedule) for time in t[view::2]) / 2
        expected = 2 * r * ((2 * image.double() - 1) - mean)[view]
        # float32: ten steps with a few roundings each of values of 3, over a sigma of 0.03 at least.
        torch.testing.assert_close(found[view], expected, rtol=2e-4, atol=2e-4)
    # Only rows whose time is still ahead are asked, then all of them at their own times.
    ahead = [sum(time > k / 10 for time in t) for k in range(10)]
    assert oracle.rows == [*(rows for rows in ahead if rows), 4]
    assert sum(ahead) == sum(math.ceil(10 * time) for time in t)
    assert oracle.times[-1] == pytest.approx(t)


def test_sdi_comes_to_the_exact_inversion_at_first_order():
    """The probability flow of a Gaussian keeps (z - alpha m) / sqrt(v): the error halves with the step."""
    alpha, sigma, v = levels(0.5)
    part = math.sqrt(v) / STD
    exact = sigma / v * part - (part - alpha) / sigma
    coarse, middle, fine = (abs(inverted_residual(0.5, steps, cosine_schedule) - exact) for steps in (50, 100, 200))
    # Half, with a remainder of second order: a tenth of it at most at these steps.
    assert middle / coarse == pytest.approx(0.5, abs=0.05) and fine / middle == pytest.approx(0.5, abs=0.05)
    assert exact > 0  # so that the mean is where it leads


def test_sdi_stops_at_the_mean_where_sds_still_shakes():
    oracle = GaussianOracle(means(), STD)
    image = ((means()["a"] + 1) / 2)[None]
    still = dataclasses.replace(GUIDED, omega=0.0, inversion_omega=0.0, inversion_eta=0.0, rule="sdi")
    # float32: roundings of values of 1 over a sigma of 0.03.
    assert gradient(still, oracle, image, ["a"]).gradient.abs().max() < 1e-4
    assert gradient(dataclasses.replace(still, rule="sds"), oracle, image, ["a"]).gradient.abs().max() > 0.01


def test_noise_of_the_inversion_leaves_the_mean():
    """The prediction is linear, so that eta's noise has no part in the mean: 4,000 views against none."""
    oracle, views = GaussianOracle(means(), STD), 4000
    image = torch.rand(1, 3, 4, 4, generator=seeded(1))
    config = at(0.6, rule="sdi", omega=2.0, inversion_omega=-3.0, inversion_eta=0.0, inversion_steps=5)
    exact = gradient(config, oracle, image, ["a"]).gradient
    noisy = dataclasses.replace(config, inversion_eta=0.3)
    found = gradient(noisy, oracle, image.expand(views, -1, -1, -1), ["a"] * views).gradient
    error = found.std(0) / math.sqrt(views)
    assert float(error.min()) > 0
    assert ((found.mean(0) - exact[0]) / error).abs().max() < 4.5  # of 48 numbers


def test_inversion_has_a_weight_of_its_own():
    """Two rows a view where inversion_omega is not 0, one at the end without guidance, and the reverse."""
    image = torch.rand(1, 3, 4, 4, generator=seeded(1))
    for omega, own, rows in ((0.0, -8.5, [2, 2, 1]), (7.0, 0.0, [1, 1, 2])):
        oracle = Recording(means(), STD)
        gradient(at(0.4, rule="sdi", omega=omega, inversion_omega=own, inversion_steps=5), oracle, image, ["a"])
        assert oracle.rows == rows


# --- VSD


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
