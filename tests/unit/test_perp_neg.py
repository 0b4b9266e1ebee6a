# SPDX-License-Identifier: GPL-3.0-or-later
"""Perp-Neg: weights and blended prompts by azimuth at hand-computed angles, the gradient in float64, and refusals."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.schema import Config, GuidanceConfig
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.guidance.classifier_free import guided_prediction
from dreamwright.backend.guidance.prediction import guided, perpendicular
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.text.conditioning import Conditioning, Negatives
from dreamwright.backend.text.perp_neg import ViewBlend, view_blend
from dreamwright.backend.text.prompts import PromptEmbeddings
from tests.testing.gaussian_priors import conditioned, means, seeded
from tests.testing.oracles import GaussianOracle

WORDS = ("front", "side", "back", "overhead")
AZIMUTH = GuidanceConfig(perp_neg="azimuth", opposite_weight=1.0)
HALF, QUARTER = math.exp(-0.5), math.exp(-0.25)


def drawn_means(size: int, *, look: str = "") -> dict[str, torch.Tensor]:
    """A mean image for the empty prompt and for each view of a chair."""
    draw = seeded(3)
    texts = ("", *(f"a chair{look}, {word} view" for look in {"": 0, look: 0} for word in WORDS))
    return {text: torch.rand(3, size, size, generator=draw) for text in texts}


@pytest.mark.parametrize(
    ("azimuth", "first", "share", "front", "side"),
    [
        (0.0, "front", 1.0, 4 * HALF - 2.426, 4 - 2.426),
        (45.0, "front", 0.5, 4 * QUARTER - 2.426, 4 * QUARTER - 2.426),
        (315.0, "front", 0.5, 4 * QUARTER - 2.426, 4 * QUARTER - 2.426),
        (90.0, "side", 1.0, HALF + 0.967, HALF - 0.606),
        (270.0, "side", 1.0, HALF + 0.967, HALF - 0.606),
        (135.0, "side", 0.5, QUARTER + 0.967, QUARTER - 0.606),
        (225.0, "side", 0.5, QUARTER + 0.967, QUARTER - 0.606),
        (180.0, "side", 0.0, 1 + 0.967, 1 - 0.606),
    ],
)
def test_weights_of_threestudio(azimuth: float, first: str, share: float, front: float, side: float) -> None:
    blend = view_blend(azimuth, 10.0, 60.0)
    second = {"front": "side", "side": "back"}[first]
    assert (blend.first, blend.second) == (f"{first} view", f"{second} view")
    # Float64 numbers below 2 with a few roundings of 2e-16.
    assert (blend.share, blend.front, blend.side) == pytest.approx((share, front, side), abs=1e-14)
    assert blend.front > 0 and blend.side > 0


@settings(max_examples=60, deadline=None)
@given(st.floats(-720, 720), st.floats(-10, 60))
def test_blend_is_even_in_azimuth_and_continuous_at_the_side(azimuth: float, elevation: float) -> None:
    blend, mirrored = view_blend(azimuth, elevation, 60.0), view_blend(-azimuth, elevation, 60.0)
    assert blend.first == mirrored.first
    # Angles of up to 720 degrees err by 1e-13, shares by a 90th of that.
    assert dataclasses.astuple(blend)[2:] == pytest.approx(dataclasses.astuple(mirrored)[2:], abs=1e-12)
    assert 0 <= blend.share <= 1 and min(blend.front, blend.side) >= 0
    before, after = view_blend(90 - 1e-9, elevation, 60.0), view_blend(90 + 1e-9, elevation, 60.0)
    assert before.second == after.first == "side view"
    assert (1 - before.share, after.share) == pytest.approx((1.0, 1.0), abs=1e-10)
    # f_fs(0) and f_fsb(1), f_sf(1) and f_sb(1): published to three digits, they meet within 1e-3.
    assert (before.front, before.side) == pytest.approx((after.front, after.side), abs=1e-3)


def test_no_negatives_from_above() -> None:
    assert view_blend(20.0, 60.1, 60.0) == ViewBlend("overhead view", "overhead view", 1.0, 0.0, 0.0)


def test_prompts_are_blended_and_keep_their_look() -> None:
    bank = drawn_means(4, look=", untextured")
    oracle = GaussianOracle(bank, 0.5)
    config = dataclasses.replace(AZIMUTH, textureless_words="untextured", opposite_weight=2.0)
    views = PromptEmbeddings(oracle, "a chair", config).for_cameras(
        [45.0, 0.0, 112.5, 10.0], [0.0, 0.0, 0.0, 70.0], ["albedo", "shaded", "textureless", "albedo"]
    )
    looks = ["a chair", "a chair", "a chair, untextured", "a chair"]

    def stacked(*words: str) -> torch.Tensor:
        return torch.stack([bank[f"{look}, {word} view"] for look, word in zip(looks, words, strict=True)])

    share = torch.tensor([0.5, 1.0, 0.75, 1.0]).view(-1, 1, 1, 1)
    mixed = share * stacked("front", "front", "side", "overhead") + (1 - share) * stacked(*["side"] * 2, "back", "side")
    # Means of numbers in [0, 1], in float64 here and in float32 there: a rounding of 6e-8.
    torch.testing.assert_close(views.positive.tensors["mean"], mixed, rtol=0, atol=2e-7)
    front, side = (prompt.tensors["mean"] for prompt in views.opposite.prompts)
    assert torch.equal(front, stacked(*["front"] * 4)) and torch.equal(side, stacked(*["side"] * 4))
    blends = [view_blend(azimuth, 0.0, 60.0) for azimuth in (45.0, 0.0, 112.5)]
    assert views.opposite.weights[0].tolist() == [2 * blend.front for blend in blends] + [0.0]
    assert views.opposite.weights[1].tolist() == [2 * blend.side for blend in blends] + [0.0]
    assert views.words == (
        "a chair, side view", "a chair, front view", "a chair, untextured, side view", "a chair, overhead view",
    )  # fmt: skip


def test_gradient_by_azimuth() -> None:
    """2 w (u + (1 + omega) (d - sum_k w_k p_k) - eps), d = c - u, in float64, with two noises a view."""
    size, omega, azimuths = 8, 3.0, (30.0, 150.0)
    bank, draw = drawn_means(size), seeded(4)
    oracle = GaussianOracle(bank, 0.5)
    config = dataclasses.replace(AZIMUTH, omega=omega, t_min=0.6, t_max=0.6, t_max_end=0.6, noises=2)
    views = PromptEmbeddings(oracle, "a chair", config).for_cameras(azimuths, [0.0, 0.0])
    image = torch.rand(2, 3, size, size, generator=draw)
    calls, predict = [], oracle.predict_noise
    oracle.predict_noise = lambda z_t, t, c: calls.append(len(z_t)) or predict(z_t, t, c)
    got = ScoreDistillation(oracle, config).gradient(image, None, views, seeded(0), 0.0).gradient
    assert calls == [2 * 2 * 4]  # two views, two noises; prompt, negative prompt, front and side

    stream = seeded(0)
    torch.rand(2, 2, generator=stream)  # the times are drawn first
    eps = torch.randn(2, 2, 3, size, size, generator=stream).double()  # view, noise
    t = torch.tensor(0.6, dtype=torch.float64)
    alpha, sigma = torch.cos(torch.pi * t / 2), torch.sin(torch.pi * t / 2)
    expected = torch.zeros(2, 3, size, size, dtype=torch.float64)
    front, side, back = (bank[f"a chair, {word} view"].double() for word in WORDS[:3])
    centers = (2 / 3 * front + 1 / 3 * side, 1 / 3 * side + 2 / 3 * back)
    for view, azimuth in enumerate(azimuths):
        blend = view_blend(azimuth, 0.0, 60.0)
        for noise in eps[view]:
            z = alpha * (2 * image[view].double() - 1) + sigma * noise
            u, c, f, s = (
                sigma * (z - alpha * mean) / (alpha**2 * 0.25 + sigma**2)
                for mean in (bank[""].double(), centers[view], front, side)
            )
            toward = c - u
            led = toward.clone()
            for weight, other in ((blend.front, f - u), (blend.side, s - u)):
                led -= weight * (other - (other * toward).sum() / toward.square().sum() * toward)
            expected[view] += sigma**2 * (u + (1 + omega) * led - noise)  # the mean of two, times 2
    # Float32: predictions of size 5 with some roundings of 6e-8, times up to 2 (1 + omega) (1 + 2 weights of 2) = 40.
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-4)


def test_one_negative_is_as_before_to_the_bit() -> None:
    oracle, t, omega, weight = GaussianOracle(means(), 0.3), torch.tensor([0.3, 0.7]), 6.7, 1.3
    z_t, chosen, other = torch.randn(2, 3, 4, 4, generator=seeded(0)), conditioned(oracle, ["a", "b"]), ["b", "a"]
    opposite = oracle.embed(other)
    negatives = Negatives.of(opposite, weight)
    _, output = guided_prediction(oracle, z_t, t, chosen.positive, chosen.negative, omega, negatives)
    c, u, o = (oracle.predict_noise(z_t, t, part) for part in (chosen.positive, chosen.negative, opposite))
    assert torch.equal(output, guided(c, u, omega) - (1 + omega) * weight * perpendicular(o - u, c - u))


def test_negatives_are_rows_with_weights() -> None:
    prompt = Conditioning({"row": torch.arange(3)})
    negatives = Negatives((prompt, prompt), (torch.ones(3), torch.arange(3.0)))
    twice = negatives.with_prompts(lambda rows: Conditioning.stack([rows, rows]))
    assert [part.tensors["row"].tolist() for part in twice.prompts] == [[0, 1, 2, 0, 1, 2]] * 2
    assert twice.weights[1].tolist() == [0, 1, 2, 0, 1, 2]
    chosen = twice[torch.tensor([5, 1])]
    assert chosen.prompts[0].tensors["row"].tolist() == [2, 1] and chosen.weights[1].tolist() == [2, 1]
    for prompts, weights in (((), ()), ((prompt,), ()), ((prompt,), (torch.ones(2),))):
        with pytest.raises(ValueError, match="allowed are one or more prompts"):
            Negatives(prompts, weights)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("guidance.view_words=eight", ("guidance.view_words is eight", "allowed with azimuth is four")),
        ("guidance.view_dependent=false", ("guidance.view_dependent is false", "allowed with azimuth is true")),
    ],
)
def test_view_words_without_weights_are_refused(setting: str, words: tuple[str, ...]) -> None:
    azimuth = "guidance.perp_neg=azimuth"
    with pytest.raises(ConfigError) as caught:
        apply_settings(Config(), [azimuth, "guidance.opposite_weight=1", setting])
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)
    assert apply_settings(Config(), [azimuth, setting]).guidance.opposite_prompts == 0  # Perp-Neg is off


def test_prompts_of_a_view_count_in_the_networks_batch() -> None:
    assert [GuidanceConfig().opposite_prompts, AZIMUTH.opposite_prompts] == [0, 2]
    assert dataclasses.replace(AZIMUTH, perp_neg="opposite").opposite_prompts == 1
