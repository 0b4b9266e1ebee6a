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
    assert 5 < sharp.sum() < 35  # half of the images are not blurred
    dot = out[~sharp].mean((0, 1))
    across = torch.arange(15.0) - 7
    # 225 float32 terms: at most 225 x 6e-8 = 1.4e-5 in the worst case, far less on average.
    assert float(dot.sum()) == pytest.approx(1.0, abs=1e-5)
    # A sampled and truncated Gaussian of width 0.8 has another variance than the continuous one, by less than 2%.
    assert float((dot.sum(0) * across.square()).sum()) == pytest.approx(0.64, rel=0.02)
    assert float((dot.sum(1) * across.square()).sum()) == pytest.approx(0.64, rel=0.02)


@pytest.mark.usefixtures("unchanging")
def test_without_zoom_and_shift_images_are_only_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_classifier, "degraded", lambda images, generator: images)
    images = torch.rand(30, 3, 12, 12, generator=torch.Generator().manual_seed(2))
    out = augmented(images, torch.Generator().manual_seed(3))
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
    # A few roundings of 6e-8.
    assert torch.allclose(out, torch.tensor([0.9, 0.1, 0.5]).view(1, 3, 1, 1).expand(4, 3, 9, 9), atol=1e-5)
