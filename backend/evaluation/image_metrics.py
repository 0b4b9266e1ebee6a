# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of images without a prompt: saturation, detail and diversity."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

D65 = (0.95047, 1.0, 1.08883)  # CIE 1931 2-degree white of sRGB
TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)  # from linear sRGB


def chroma(images: Tensor) -> Tensor:
    """CIELAB's C* = sqrt(a*^2 + b*^2) of each pixel, (n, h, w), of display sRGB (n, 3, h, w) in [0, 1]; 0 to 134."""
    display = images.double().clamp(0, 1)
    linear = torch.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("ij,njhw->nihw", torch.tensor(TO_XYZ, dtype=torch.float64), linear)
    ratio = xyz / torch.tensor(D65, dtype=torch.float64).view(1, 3, 1, 1)
    edge = 6 / 29
    root = torch.where(ratio > edge**3, ratio.clamp(min=1e-12) ** (1 / 3), ratio / (3 * edge**2) + 4 / 29)
    x, y, z = root.unbind(1)
    return torch.hypot(500 * (x - y), 200 * (y - z))


def mean_chroma(images: Tensor, background: float | None = None) -> list[float]:
    """Mean C* of each image; with a `background` gray level, of the other pixels alone (0 when there are none)."""
    means = []
    for image, values in zip(images, chroma(images), strict=True):
        foreground = (
            torch.ones_like(values, dtype=torch.bool)
            if background is None
            else (image - background).abs().amax(0) > 1e-3
        )
        means.append(float(values[foreground].mean()) if bool(foreground.any()) else 0.0)
    return means


def detail(images: Tensor) -> list[float]:
    """Mean absolute difference of neighboring pixels of each image, vertical and horizontal; smoothing lowers it."""
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean((1, 2, 3))
    across = (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3))
    return [float(value) for value in 0.5 * (down + across)]


def mean_distance(images: Tensor) -> float | None:
    """Root mean square difference of two images, averaged over all pairs of n; None for fewer than two."""
    pairs = list(combinations(images.double().flatten(1), 2))
    return sum(float((one - other).square().mean().sqrt()) for one, other in pairs) / len(pairs) if pairs else None


def mean_feature_distance(features: Tensor) -> float | None:
    """1 - cosine of two feature vectors, averaged over all pairs of n vectors (n, k); None for fewer than two."""
    pairs = list(combinations(features.double(), 2))
    if not pairs:
        return None
    return sum(1 - float(functional.cosine_similarity(one, other, dim=0)) for one, other in pairs) / len(pairs)
