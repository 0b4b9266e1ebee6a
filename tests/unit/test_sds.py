# SPDX-License-Identifier: GPL-3.0-or-later
"""Score distillation and ancestral sampling against closed forms and against diffusers' own scheduler."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from dreamwright.backend.config.schema import GuidanceConfig
from dreamwright.backend.errors import ConfigError, ModelError, RunError
from dreamwright.backend.guidance.classifier_free import guided_prediction
from dreamwright.backend.guidance.denoisers.pixel import PixelDiffusion
from dreamwright.backend.guidance.prediction import PREDICTION_TYPES
from dreamwright.backend.guidance.sampling import ancestral_sample
from dreamwright.backend.guidance.sds import ScoreDistillation, distill_image
from dreamwright.backend.text.conditioning import Conditioning, Negatives
from tests.testing.gaussian_priors import ConvertedPrediction, conditioned, means, seeded
from tests.testing.oracles import (
    GaussianOracle,
    KnownImages,
    cosine_schedule,
    flow_schedule,
)
from tests.testing.tiny_pipeline import write_pipeline

UNGUIDED = GuidanceConfig(omega=0.0)
GUIDED = GuidanceConfig(omega=7.0)


class Broken(GaussianOracle):
    """Predicts NaN for the second image."""

    def predict_noise(self, z_t, t, conditioning):
        noise = super().predict_noise(z_t, t, conditioning)
        noise[1] = float("nan")
        return noise


class Counting:
    """Records the calls of a U-Net, their batch sizes, and whether an input required gradients."""

    def __init__(self, unet) -> None:
        self.unet, self.config, self.batches, self.graph = unet, unet.config, [], False

    def __call__(self, z, *args, **options):
        self.batches.append(len(z))
        self.graph |= z.requires_grad or torch.is_grad_enabled()
        return self.unet(z, *args, **options)


def expected_gradient(image, prompt_mean, empty_mean, std, config, schedule, cells=20_000) -> torch.Tensor:
    """E[2 w(t) (eps_hat - eps)] for Gaussian priors: 2 E_t[w alpha sigma / (alpha^2 std^2 + sigma^2)] (x - m_hat),
    m_hat = (1 + omega) m_c - omega m_u; the noise has mean zero and drops out. The integral over t by midpoints."""
    t = config.t_min + (config.t_max - config.t_min) * (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    alpha, sigma = schedule(t)
    weight = sigma**2 if config.weighting == "sigma2" else torch.ones_like(sigma)
    factor = (weight * alpha * sigma / (alpha**2 * std**2 + sigma**2)).mean()
    mean = (1 + config.omega) * prompt_mean.double() - config.omega * empty_mean.double()
    return 2 * factor * ((2 * image.double() - 1) - mean)


@pytest.mark.parametrize("noises", [1, 4])
@pytest.mark.parametrize("weighting", ["sigma2", "uniform"])
@pytest.mark.parametrize("config", [UNGUIDED, GUIDED], ids=["unguided", "guided"])
def test_gradient_is_unbiased_for_a_gaussian_prior(config, weighting, noises):
    """Means over 40 seeds of 500 views agree with the closed form within their error bars, in every pixel."""
    config = dataclasses.replace(config, weighting=weighting, noises=noises)
    center, std, views = means(), 0.3, 500
    oracle = GaussianOracle(center, std)
    image = torch.rand(3, 4, 4, generator=seeded(1))
    conditioning = conditioned(oracle, ["a"] * views)
    guidance = ScoreDistillation(oracle, config)
    batch = image.expand(views, -1, -1, -1)
    seeds = torch.stack(
        [guidance.gradient(batch, None, conditioning, seeded(s), 0.0).gradient.mean(0) for s in range(40)]
    )
    error = seeds.double().std(0) / math.sqrt(len(seeds))
    expected = expected_gradient(image, center["a"], center[""], std, config, cosine_schedule)
    score = (seeds.double().mean(0) - expected) / error
    assert score.abs().max() < 4.5  # 48 pixels; t distribution with 39 degrees of freedom
    # Squares have a mean of 39 / 37 and a variance of 2.4: 48 of them have a standard error of 0.22, four of them.
    assert score.square().mean() < 2.0


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(PREDICTION_TYPES), st.floats(0, 50), st.booleans(), st.integers(1, 3),
    st.integers(2, 6), st.integers(0, 99),
)  # fmt: skip
def test_every_prediction_type_gives_the_same_gradient(kind, omega, flow, views, size, seed):
    oracle = GaussianOracle(means(size), 0.4, flow_schedule if flow else cosine_schedule)
    guidance = dataclasses.replace(GUIDED, omega=omega)
    image = torch.rand(views, 3, size, size, generator=seeded(seed))
    conditioning = conditioned(oracle, ["a", "b", ""][:views])
    plain = ScoreDistillation(oracle, guidance).gradient(image, None, conditioning, seeded(seed), 0.5)
    typed = ScoreDistillation(ConvertedPrediction(oracle, kind), guidance).gradient(
        image, None, conditioning, seeded(seed), 0.5
    )
    # Converting a float32 prediction divides by alpha or sigma, at least 0.02, twice: a few roundings of values of 4
    # (2.4e-7) become 5e-5 at most; guidance scales two of them by 1 + omega, and the chain rule by 2.
    torch.testing.assert_close(typed.gradient, plain.gradient, rtol=0, atol=2e-4 * (1 + omega))
    assert typed.scalars["t"] == plain.scalars["t"]


def test_guidance_is_the_papers_form_in_one_call():
    """(1 + omega) eps_c - omega eps_u; diffusers' eps_u + s (eps_c - eps_u) with s = 1 + omega is the same."""
    oracle, calls = GaussianOracle(means(), 0.3), []
    predict = oracle.predict_noise
    oracle.predict_noise = lambda z_t, t, c: calls.append(len(z_t)) or predict(z_t, t, c)
    z_t, t = torch.randn(2, 3, 4, 4, generator=seeded(0)), torch.tensor([0.3, 0.7])
    chosen = conditioned(oracle, ["a", "b"])
    kind, output = guided_prediction(oracle, z_t, t, chosen.positive, chosen.negative, 7.0)
    assert kind == "epsilon" and calls == [4]
    conditional, unconditional = predict(z_t, t, chosen.positive), predict(z_t, t, chosen.negative)
    # float32: values of up to 30 have a few roundings of 2e-6.
    torch.testing.assert_close(output, unconditional + 8.0 * (conditional - unconditional), rtol=0, atol=1e-5)
    guided_prediction(oracle, z_t, t, chosen.positive, chosen.negative, 0.0)
    assert calls == [4, 2]


def test_perp_neg_is_perpendicular_to_the_prompt():
    """u + (1 + omega) (c - u - w p), p = the part of o - u perpendicular to c - u; no effect where o = c."""
    oracle, calls = GaussianOracle(means(), 0.3), []
    predict = oracle.predict_noise
    oracle.predict_noise = lambda z_t, t, c: calls.append(len(z_t)) or predict(z_t, t, c)
    z_t, t = torch.randn(2, 3, 4, 4, generator=seeded(0)), torch.tensor([0.3, 0.7])
    chosen, opposite = conditioned(oracle, ["a", "a"]), oracle.embed(["b", "a"])
    _, output = guided_prediction(oracle, z_t, t, chosen.positive, chosen.negative, 7.0, Negatives.of(opposite, 1.5))
    assert calls == [6]
    c, u, o = (predict(z_t, t, p).double() for p in (chosen.positive, chosen.negative, opposite))
    for i in range(2):
        d, e = (c - u)[i], (o - u)[i]
        expected = u[i] + 8.0 * (d - 1.5 * (e - (d * e).sum() / (d * d).sum() * d))
        # float32: values of up to 30 have a few roundings of 2e-6, and a projection over 48 values errs by 48 x 6e-8 of
        # its part of up to 8: 2e-5.
        torch.testing.assert_close(output[i].double(), expected, rtol=0, atol=5e-5)
    _, plain = guided_prediction(oracle, z_t, t, chosen.positive, chosen.negative, 7.0)
    # float32, as above.
    torch.testing.assert_close(output[1], plain[1], rtol=0, atol=5e-5)
    assert not torch.allclose(output[0], plain[0], atol=1e-2)


def test_gradient_runs_the_unet_forward_once(tmp_path):
    denoiser = PixelDiffusion.load(write_pipeline(tmp_path / "tiny"))
    denoiser.unet = counting = Counting(denoiser.unet)
    conditioning = conditioned(denoiser, ["a red mushroom", "a blue chair"])
    theta = torch.rand(2, 3, 16, 16, generator=seeded(0)).requires_grad_(True)
    image = theta * 1.0
    guidance = ScoreDistillation(denoiser, GUIDED)
    for seed in range(3):
        result = guidance.gradient(image, None, conditioning, seeded(seed), 0.0)
        assert not result.gradient.requires_grad
        (result.gradient.detach() * image).sum().backward(retain_graph=True)
    assert counting.batches == [4, 4, 4] and not counting.graph
    assert theta.grad is not None
    assert all(parameter.grad is None for parameter in counting.unet.parameters())


def test_gradient_depends_on_generator_and_inputs_only():
    oracle = GaussianOracle(means(), 0.3)
    guidance, image, c = ScoreDistillation(oracle, GUIDED), torch.rand(2, 3, 4, 4), conditioned(oracle, ["a", "b"])
    first = guidance.gradient(image, None, c, seeded(3), 0.2)
    torch.rand(7)
    again = guidance.gradient(image, None, c, seeded(3), 0.2)
    assert torch.equal(first.gradient, again.gradient) and first.scalars == again.scalars


def test_times_are_uniform_with_an_annealed_maximum():
    guidance = ScoreDistillation(GaussianOracle(means(), 0.3), dataclasses.replace(GUIDED, t_max_end=0.5))
    for progress, high in ((0.0, 0.98), (0.5, 0.74), (1.0, 0.5), (2.0, 0.5)):
        t = guidance.times(20_000, seeded(0), progress)
        # 20,000 draws miss a share of 0.002 / 0.96 of the range with a probability of exp(-40).
        assert 0.02 <= t.min() < 0.022 and high - 0.002 < t.max() <= high
        width = high - 0.02
        # Four standard errors of the mean and of the deviation; a uniform variable has a kurtosis of 1.8.
        assert abs(float(t.mean()) - (0.02 + high) / 2) < 4 * width / math.sqrt(12 * len(t))
        assert abs(float(t.std()) - width / math.sqrt(12)) < 4 * width / math.sqrt(12) * math.sqrt(0.2 / len(t))


def test_gradient_norm_is_clipped_per_view():
    oracle = GaussianOracle(means(), 0.3)
    image, c = torch.rand(4, 3, 4, 4, generator=seeded(0)), conditioned(oracle, ["a"] * 4)
    free = ScoreDistillation(oracle, GUIDED).gradient(image, None, c, seeded(0), 0.0).gradient
    norms = free.flatten(1).norm(dim=1)
    limit = float(norms.median())
    clipped = ScoreDistillation(oracle, dataclasses.replace(GUIDED, gradient_clip=limit))
    result = clipped.gradient(image, None, c, seeded(0), 0.0)
    torch.testing.assert_close(result.gradient.flatten(1).norm(dim=1), norms.clamp(max=limit))
    torch.testing.assert_close(functional.normalize(result.gradient.flatten(1)), functional.normalize(free.flatten(1)))
    assert result.scalars["gradient_norm"] == pytest.approx(float(norms.mean()))


def test_gradient_of_resized_images():
    """Chain rule through the resize, against finite differences of <gradient at the model's size, resize(image)>."""
    oracle = GaussianOracle(means(4), 0.3)
    guidance, c = ScoreDistillation(oracle, UNGUIDED), conditioned(oracle, ["a"])
    image = torch.rand(1, 3, 2, 2, generator=seeded(0))
    big = functional.interpolate(image, (4, 4), mode="bilinear", align_corners=False)
    inner = guidance.gradient(big, None, c, seeded(1), 0.0).gradient
    outer = guidance.gradient(image, None, c, seeded(1), 0.0).gradient
    assert outer.shape == image.shape
    step = torch.zeros_like(image)
    step[0, 1, 0, 1] = 1.0
    moved = functional.interpolate(step, (4, 4), mode="bilinear", align_corners=False)
    # float32: sums of 16 terms, 16 x 6e-8 = 1e-6, ten times that where they cancel.
    assert float(outer[0, 1, 0, 1]) == pytest.approx(float((inner * moved).sum()), rel=1e-5)


def test_nan_is_reported_with_its_origin():
    image = torch.rand(2, 3, 4, 4)
    broken = Broken(means(), 0.3)
    with pytest.raises(RunError, match="denoiser returned NaN or infinity for 1 of 2"):
        ScoreDistillation(broken, UNGUIDED).gradient(image, None, conditioned(broken, ["a", "a"]), seeded(0), 0.0)
    image[0, 0, 0, 0] = float("inf")
    oracle = GaussianOracle(means(), 0.3)
    with pytest.raises(RunError, match="rendered image holds NaN"):
        ScoreDistillation(oracle, UNGUIDED).gradient(image, None, conditioned(oracle, ["a", "a"]), seeded(0), 0.0)


def test_impossible_settings_are_refused():
    oracle = GaussianOracle(means(), 0.3)
    for changes in (
        {"t_min": 0.9, "t_max_end": 0.5}, {"t_max": 1.5}, {"t_min": -0.1}, {"gradient_clip": -1.0}, {"noises": 0},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="allowed is"):
            ScoreDistillation(oracle, dataclasses.replace(GUIDED, **changes))
    with pytest.raises(ConfigError, match="spiral"):
        next(distill_image(oracle, conditioned(oracle, ["a"]), GUIDED, "spiral", 5, 0.1, seeded(0)))
    with pytest.raises(ConfigError, match="0 steps"):
        next(distill_image(oracle, conditioned(oracle, ["a"]), GUIDED, "free", 0, 0.1, seeded(0)))
    with pytest.raises(ConfigError, match="0 sampling steps"):
        ancestral_sample(oracle, oracle.embed(["a"]), oracle.embed([""]), 0.0, 0, seeded(0))


def test_distillation_finds_the_mean_of_a_gaussian():
    oracle = GaussianOracle(means(), 0.1)
    conditioning = conditioned(oracle, ["a", "b"])
    events = list(distill_image(oracle, conditioning, UNGUIDED, "free", 300, 0.1, seeded(0)))
    assert [event.step for event in events] == list(range(1, 301))
    expected = (torch.stack([means()["a"], means()["b"]]) + 1) / 2
    # Convergence: Adam's step of 0.1 falls to 0, and 300 draws of the gradient's noise (a deviation of 0.1 x 0.5)
    # average to 0.05 / sqrt(30) = 0.01 over the last tenth; three times that.
    assert (events[-1].image - expected).abs().max() < 0.03
    assert events[-1].scalars["clean_error"] < 0.2 * events[0].scalars["clean_error"]


def test_distillation_finds_the_nearest_symmetric_image():
    oracle = GaussianOracle(means(), 0.1)
    *_, last = distill_image(oracle, conditioned(oracle, ["a"]), UNGUIDED, "symmetric", 300, 0.1, seeded(0))
    assert torch.equal(last.image, last.image.flip(-1))
    mean = (means()["a"] + 1) / 2
    assert (last.image[0] - (mean + mean.flip(-1)) / 2).abs().max() < 0.03  # as above


def test_known_images_guide_each_view_to_its_image():
    """The cameras are plain numbers: the oracle only passes them to its renderer."""
    oracle = KnownImages(lambda cameras: cameras.view(-1, 1, 1, 1).expand(-1, 3, 4, 4), image_size=4)
    conditioning = conditioned(oracle, ["a red mushroom"] * 3)
    cameras = torch.tensor([0.1, 0.5, 0.9])
    image = torch.rand(3, 3, 4, 4, generator=seeded(0))
    guidance = ScoreDistillation(oracle, dataclasses.replace(GUIDED, weighting="uniform"))
    result = guidance.gradient(image, cameras, conditioning, seeded(1), 0.0)
    t = guidance.times(3, seeded(1), 0.0)
    alpha, sigma = (c.view(-1, 1, 1, 1) for c in cosine_schedule(t))
    target = cameras.view(-1, 1, 1, 1)
    # float32: values of about 1 have a few roundings of 6e-8, times 4 / sigma of at most 4 / 0.03: 1e-5 each.
    torch.testing.assert_close(result.gradient, 4 * alpha / sigma * (image - target), rtol=1e-5, atol=5e-5)
    # The clean image is (z - sigma eps) / alpha, with 1 / alpha of at most 32: 32 x 6e-8 x a few.
    assert result.scalars["clean_error"] == pytest.approx(
        float((2 * (image - target)).square().mean().sqrt()), rel=2e-5
    )
    with pytest.raises(ModelError, match="no cameras"):
        guidance.gradient(image, None, conditioning, seeded(1), 0.0)


def test_conditionings_are_indexed_and_stacked_by_rows():
    rows = Conditioning({"x": torch.arange(6).view(3, 2)})
    assert rows[1].tensors["x"].tolist() == [[2, 3]] and rows[-1].tensors["x"].tolist() == [[4, 5]]
    assert len(Conditioning.stack([rows, rows[0:2], rows[[0, 0]]])) == 7
    with pytest.raises(IndexError):
        rows[3]
    with pytest.raises(ValueError, match="cannot stack"):
        Conditioning.stack([rows, Conditioning({"y": torch.zeros(1)})])
    with pytest.raises(ValueError, match="equally many rows"):
        Conditioning({"x": torch.zeros(2), "y": torch.zeros(3)})
