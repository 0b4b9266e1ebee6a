# SPDX-License-Identifier: GPL-3.0-or-later
"""Augmentation of the classifier's training images: shifted and degraded, with the same prop, color and view."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.starter_training import train_classifier
from tools.starter_training.train_classifier import augmented, degraded


@pytest.fixture
def unchanging(monkeypatch: pytest.MonkeyPatch) -> None:
    """No zoom, shift, noise, contrast or saturation; blur stays."""
    for name, value in (("ZOOM", (1.0, 1.0)), ("SHIFT", 0), ("NOISE", 0.0), ("GAIN", (1.0, 1.0))):
        monkeypatch.setattr(train_classifier, name, value)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 5), side=st.integers(8, 40), seed=st.integers(0, 1000))
def test_augmented_images_keep_shape_and_range(n: int, side: int, seed: int) -> None:
    images = torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))
    once, again = (augmented(images, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert once.shape == images.shape
    assert once.min() >= 0 and once.max() <= 1
    assert torch.equal(once, again)


@pytest.mark.usefixtures("unchanging")
def test_blur_is_a_gaussian_of_the_configured_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dot in the middle becomes the kernel: its weight stays 1 and its variance is sigma squared, each way."""
    monkeypatch.setattr(train_classifier, "BLUR", (0.8, 0.8))
    images = torch.zeros(40, 3, 15, 15, dtype=torch.float32)
    images[:, :, 7, 7] = 1.0
    out = degraded(images, torch.Generator().manual_seed(0))
    sharp = (out == images).flatten(1).all(1)
    assert 5 < sharp.sum() < 35  # half of 40: 20 with a standard error of 3.2, within 4.7 of them
    dot = out[~sharp].double().mean((0, 1))
    across = torch.arange(15.0).double() - 7
    # Weights in float32, normalized and applied twice: a few roundings of 6e-8; the sums are float64.
    assert float(dot.sum()) == pytest.approx(1.0, abs=2e-6)
    # Sampling changes the variance by 8 pi^2 0.64 e^(-2 pi^2 0.64) = 1.6e-4 of it. Cutting at 3 pixels loses two
    # weights of e^-12.5 in 2 at 4 pixels: e^-12.5 (16 / 0.64 - 1) = 9e-5. The bound is four times their sum.
    assert float((dot.sum(0) * across.square()).sum()) == pytest.approx(0.64, rel=1e-3)
    assert float((dot.sum(1) * across.square()).sum()) == pytest.approx(0.64, rel=1e-3)


@pytest.mark.usefixtures("unchanging")
def test_without_zoom_and_shift_images_are_only_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_classifier, "degraded", lambda images, generator: images)
    images = torch.rand(30, 3, 12, 12, generator=torch.Generator().manual_seed(2))
    out = augmented(images, torch.Generator().manual_seed(3))
    # Sampling positions in float32 are off by some 12 x 6e-8 pixels, between values that differ by at most 1.
    kept = (out - images).abs().flatten(1).amax(1) < 1e-5
    turned = (out - images.flip(-1)).abs().flatten(1).amax(1) < 1e-5
    assert bool((kept ^ turned).all()) and bool(kept.any()) and bool(turned.any())


def test_saturation_and_contrast_by_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(0.6, 0.4, 0.5) has a grey of 0.5, which is also its image's mean; doubled twice it is (0.9, 0.1, 0.5)."""
    monkeypatch.setattr(train_classifier, "NOISE", 0.0)
    monkeypatch.setattr(train_classifier, "GAIN", (2.0, 2.0))
    images = torch.tensor([0.6, 0.4, 0.5]).view(1, 3, 1, 1).expand(4, 3, 9, 9)
    out = degraded(images, torch.Generator().manual_seed(0))
    # The mean of 243 float32 values of 0.5 errs by at most 243 x 3e-8 = 7e-6; the rest is a few roundings.
    expected = torch.tensor([0.9, 0.1, 0.5]).view(1, 3, 1, 1).expand(4, 3, 9, 9)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
