# SPDX-License-Identifier: GPL-3.0-or-later
"""CLIP guidance against the scores and processor of transformers, and its augmentations against images made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dreamwright.backend.config.schedules import exponential
from dreamwright.backend.config.schema import ClipConfig, GuidanceConfig
from dreamwright.backend.errors import PromptError, RunError
from dreamwright.backend.guidance.backgrounds import blurred, checkerboards, fourier_textures, random_backgrounds
from dreamwright.backend.guidance.clip_guidance import ClipGuidance
from dreamwright.backend.guidance.clip_model import load_image_text, preprocess_images
from dreamwright.backend.guidance.interfaces import LayeredGuidance
from dreamwright.backend.runtime.rng import PerViewGenerator
from dreamwright.backend.scenes.field_losses import transmittance_loss
from dreamwright.backend.text.prompts import PromptEmbeddings
from tests.testing.tiny_clip import MEAN, SIDE, STD, write_clip

PROMPTS = ["a red mushroom", "a blue chair, wooden"]
UNVIEWED = GuidanceConfig(view_dependent=False)
# Two float64 computations of scores and gradients below 1 that sum in another order: thousands of roundings of 1.1e-16.
FLOAT64 = 1e-12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def model(folder):
    return load_image_text(folder, dtype=torch.float64)


@pytest.fixture(scope="module")
def reference(folder):
    loaded = transformers.CLIPModel.from_pretrained(folder, dtype=torch.float64)
    return loaded.eval(), transformers.CLIPTokenizer.from_pretrained(folder)


def random_images(n: int, side: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def conditioned(model, prompt: str, views: int):
    return PromptEmbeddings(model, prompt, UNVIEWED).for_cameras([0.0] * views, [30.0] * views)


def own_logits(reference, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """transformers' logits_per_image of images of the network's input size."""
    network, tokenizer = reference
    pixels = (images - torch.tensor(MEAN, dtype=images.dtype).view(3, 1, 1)) / torch.tensor(
        STD, dtype=images.dtype
    ).view(3, 1, 1)
    return network(**tokenizer(prompts, padding=True, return_tensors="pt"), pixel_values=pixels).logits_per_image


def test_scores_are_logits_over_the_scale(model, reference):
    images = random_images(3, SIDE)
    expected = own_logits(reference, images, PROMPTS) / reference[0].logit_scale.exp()
    assert torch.allclose(model.scores(images, PROMPTS), expected, rtol=0, atol=FLOAT64)
    assert expected.std() > 1e-3  # the scores must differ for the comparison to mean anything


def test_gradient_is_that_of_the_negative_score(model, reference):
    images = random_images(2, SIDE, 1)
    leaf = images.clone().requires_grad_()
    logits = own_logits(reference, leaf, [PROMPTS[0]])
    expected = torch.autograd.grad(-logits.sum() / reference[0].logit_scale.exp(), leaf)[0]
    answer = ClipGuidance(model, ClipConfig()).gradient(
        images, None, conditioned(model, PROMPTS[0], 2), torch.Generator(), 0.0
    )
    assert torch.allclose(answer.gradient, expected, rtol=0, atol=FLOAT64)
    assert expected.abs().max() > 1e-6  # a million bounds, so that the comparison means something
    assert answer.scalars["cosine"] == pytest.approx(
        float((logits.mean() / reference[0].logit_scale.exp()).detach()), abs=FLOAT64
    )


def test_gradient_through_a_resize(model):
    images, guidance, words = (
        random_images(1, 20, 2),
        ClipGuidance(model, ClipConfig()),
        conditioned(model, PROMPTS[0], 1),
    )
    gradient = guidance.gradient(images, None, words, torch.Generator(), 0.0).gradient
    direction = random_images(1, 20, 3) - 0.5
    step = 1e-5
    ahead, behind = (float(model.scores(images + s * direction, [PROMPTS[0]])) for s in (step, -step))
    # Central differences of step 1e-5 err by 1e-10 of a third derivative and by 1.1e-16 / step = 1e-11. The derivative
    # is 2e-3, so by some 1e-8 of it.
    assert float((gradient * direction).sum()) == pytest.approx(-(ahead - behind) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("height,width", [(64, 64), (20, 20), (50, 80), (33, 32), (SIDE, SIDE)])
def test_preprocessing_equals_transformers(folder, model, height, width):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))
    own = transformers.models.clip.CLIPImageProcessorPil.from_pretrained(folder)
    expected = torch.from_numpy(np.asarray(own(Image.fromarray(pixels))["pixel_values"][0], dtype=np.float64))
    ours = preprocess_images(torch.from_numpy(pixels / 255.0).permute(2, 0, 1)[None], model.preprocessing)[0]
    # PIL rounds to whole levels between its two passes and after them.
    assert ours.shape == expected.shape and float((ours - expected).abs().max()) < 1.6 / 255 / min(STD)


def test_uncropped_white_view_is_the_plain_image(model):
    guidance = ClipGuidance(model, ClipConfig(crops=1, crop_share=1.0, backgrounds=False))
    assert isinstance(guidance, LayeredGuidance)
    opacity = random_images(2, SIDE, 4)[:, :1]
    color = random_images(2, SIDE, 5) * opacity
    words = conditioned(model, PROMPTS[1], 2)
    layers = guidance.layer_gradients(color, opacity, None, words, torch.Generator(), 0.0)
    plain = guidance.gradient(color + 1 - opacity, None, words, torch.Generator(), 0.0)
    assert layers.scalars["cosine"] == pytest.approx(plain.scalars["cosine"], abs=FLOAT64)
    assert torch.allclose(layers.color, plain.gradient, rtol=0, atol=FLOAT64)
    across = -plain.gradient.sum(1, keepdim=True)  # d image / d opacity = -white
    assert torch.allclose(layers.opacity, across, rtol=0, atol=FLOAT64)


def test_crops_have_own_backgrounds_and_scores_average(model):
    config = ClipConfig(crops=3, crop_share=SIDE / 40)
    opacity = random_images(1, 40, 6)[:, :1]
    color, words = random_images(1, 40, 7) * opacity, conditioned(model, PROMPTS[0], 1)

    def seen(generator):
        return ClipGuidance(model, config).layer_gradients(color, opacity, None, words, generator, 0.0)

    first = seen(torch.Generator().manual_seed(3))
    assert torch.equal(first.color, seen(torch.Generator().manual_seed(3)).color)
    assert not torch.equal(first.color, seen(torch.Generator().manual_seed(4)).color)
    generator = torch.Generator().manual_seed(3)
    corners = (torch.rand((1, 3, 2), generator=generator) * 8).long()[0].tolist()
    behind = random_backgrounds(1, 3, SIDE, generator)[0].double()
    cosines = []
    for (top, left), background in zip(corners, behind, strict=True):
        cut = slice(top, top + SIDE), slice(left, left + SIDE)
        composite = color[0][(slice(None), *cut)] + (1 - opacity[0][(slice(None), *cut)]) * background
        cosines.append(float(model.scores(composite[None].clamp(0, 1), [PROMPTS[0]])))
    assert first.scalars["cosine"] == pytest.approx(np.mean(cosines), abs=FLOAT64)


def test_views_scored_separately_draw_the_same(model):
    guidance = ClipGuidance(model, ClipConfig(crops=2, crop_share=0.8))
    opacity = random_images(3, 40, 8)[:, :1]
    color = random_images(3, 40, 9) * opacity
    together = guidance.layer_gradients(
        color, opacity, None, conditioned(model, PROMPTS[0], 3), torch.Generator().manual_seed(1), 0.0
    )
    stream = PerViewGenerator.of(3, slice(1, 2), 1)
    apart = guidance.layer_gradients(color[1:2], opacity[1:2], None, conditioned(model, PROMPTS[0], 1), stream, 0.0)
    assert torch.allclose(apart.color[0], together.color[1], rtol=0, atol=FLOAT64)


def test_nan_image_is_an_error(model):
    images = random_images(1, SIDE)
    images[0, 0, 0, 0] = math.nan
    with pytest.raises(RunError, match="NaN"):
        ClipGuidance(model, ClipConfig()).gradient(
            images, None, conditioned(model, PROMPTS[0], 1), torch.Generator(), 0.0
        )


def test_long_prompt_warns_and_empty_prompt_is_refused(model):
    assert model.check_prompt("a red mushroom") == []
    assert "77" in model.check_prompt("a " * 90)[0]
    with pytest.raises(PromptError, match="empty"):
        model.check_prompt("  ")


@given(st.integers(1, 3), st.integers(1, 3), st.integers(8, 40), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_backgrounds_of_any_size_are_images(views, crops, size, seed):
    made = random_backgrounds(views, crops, size, torch.Generator().manual_seed(seed))
    assert made.shape == (views, crops, 3, size, size) and bool(((made >= 0) & (made <= 1)).all())


def test_checkerboard_has_eight_squares_per_side():
    colors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    board = checkerboards(colors, 16)
    assert (
        torch.equal(board[:, 0, 0], colors[0])
        and torch.equal(board[:, 0, 2], colors[1])
        and torch.equal(board[:, 2, 2], colors[0])
    )
    changes = (board[0, 0, 1:] != board[0, 0, :-1]).sum()
    assert int(changes) == 7


def test_blur_keeps_the_mean_and_has_its_deviation():
    point = torch.zeros(1, 1, 33, 33, dtype=torch.float64)
    point[..., 16, 16] = 1.0
    spread = blurred(point, torch.tensor([2.0], dtype=torch.float64))[0, 0]
    x = torch.arange(33, dtype=torch.float64) - 16
    assert float(spread.sum()) == pytest.approx(1.0, abs=FLOAT64)
    # A Gaussian of width 2 has weights of e^(-16.5^2 / 8) = 2e-15 at the border, where it repeats, and its filter is
    # e^(-2 pi^2) = 3e-9 at the Nyquist frequency, where it is cut.
    assert float((spread.sum(0) * x**2).sum()) == pytest.approx(4.0, rel=1e-6)


def test_fourier_texture_is_smoother_than_its_noise():
    white = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    texture = fourier_textures(white)

    def roughness(images):
        return float((images[..., 1:] - images[..., :-1]).var() / images.var())

    # White noise has 2 = var(a - b) / var(a); the variance of 48,384 differences has a standard error of 1%, 5 times.
    assert roughness(white) == pytest.approx(2.0, rel=0.05)
    # The power f^-3 has the mean 0.095 of 2 (1 - cos 2 pi f). Some 100 lowest waves carry it, so its standard error is
    # 14%, five times; the sigmoid adds some of the square of its contrast to the higher waves.
    assert roughness(texture) < 0.2


def test_transmittance_stops_at_its_target():
    opacity = torch.tensor([0.8, 0.05]).view(2, 1, 1, 1).expand(2, 1, 4, 4).clone().requires_grad_()
    loss = transmittance_loss(opacity, target_opacity=0.1)
    # Means of equal float32 values: some roundings of 6e-8.
    assert float(loss.detach()) == pytest.approx(-(0.2 + 0.9) / 2, abs=2e-6)  # the second is clearer than 90%
    loss.backward()
    assert opacity.grad[0, 0, 0, 0] == 1 / 32 and float(opacity.grad[1].abs().max()) == 0.0


def test_target_opacity_anneals_log_linearly():
    # Logarithms and exponentials in float64: a few roundings of 1.1e-16.
    assert exponential(0.5, 0.1, 0.05, 0.0) == pytest.approx(0.5, rel=FLOAT64)
    assert exponential(0.5, 0.1, 0.05, 0.025) == pytest.approx(math.sqrt(0.05), rel=FLOAT64)
    assert exponential(0.5, 0.1, 0.05, 0.7) == pytest.approx(0.1, rel=FLOAT64)
