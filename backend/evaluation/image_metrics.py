# SPDX-License-Identifier: GPL-3.0-or-later
"""What pictures alone say about saturation, detail and diversity, without a prompt."""

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
)  # linear sRGB


def chroma(pictures: Tensor) -> Tensor:
    """CIELAB's C* = sqrt(a*^2 + b*^2) of each pixel, (n, h, w), of display sRGB (n, 3, h, w) in [0, 1]: 0 for greys, 134 at most."""
    display = pictures.double().clamp(0, 1)
    linear = torch.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("ij,njhw->nihw", torch.tensor(TO_XYZ, dtype=torch.float64), linear)
    ratio = xyz / torch.tensor(D65, dtype=torch.float64).view(1, 3, 1, 1)
    edge = 6 / 29
    root = torch.where(ratio > edge**3, ratio.clamp(min=1e-12) ** (1 / 3), ratio / (3 * edge**2) + 4 / 29)
    x, y, z = root.unbind(1)
    return torch.hypot(500 * (x - y), 200 * (y - z))


def mean_chroma(pictures: Tensor, background: float | None = None) -> list[float]:
    """Each picture's mean C*; with a `background` of that plain grey level, of the pixels that are not it (0 where all are)."""
    found = []
    for picture, values in zip(pictures, chroma(pictures)):
        seen = (
            torch.ones_like(values, dtype=torch.bool)
            if background is None
            else (picture - background).abs().amax(0) > 1e-3
        )
        found.append(float(values[seen].mean()) if bool(seen.any()) else 0.0)
    return found


def detail(pictures: Tensor) -> list[float]:
    """Each picture's mean absolute difference of neighboring pixels, down and across: what smoothing takes away, and noise adds."""
    down = (pictures[..., 1:, :] - pictures[..., :-1, :]).abs().mean((1, 2, 3))
    across = (pictures[..., 1:] - pictures[..., :-1]).abs().mean((1, 2, 3))
    return (0.5 * (down + across)).tolist()


def mean_distance(pictures: Tensor) -> float | None:
    """The mean over all pairs of n pictures of their root mean square difference; None for fewer than two."""
    pairs = list(combinations(pictures.double().flatten(1), 2))
    return sum(float((one - other).square().mean().sqrt()) for one, other in pairs) / len(pairs) if pairs else None


def mean_feature_distance(features: Tensor) -> float | None:
    """The mean over all pairs of 1 - cosine of n feature vectors (n, k); None for fewer than two."""
    pairs = list(combinations(features.double(), 2))
    return (
        sum(1 - float(functional.cosine_similarity(one, other, dim=0)) for one, other in pairs) / len(pairs)
        if pairs
        else None
    )
