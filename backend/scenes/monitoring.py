# SPDX-License-Identifier: GPL-3.0-or-later
"""Monitors of a field: empty scene, fog, NaN, Janus problem. The SDS loss does not fall and shows none of them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from .interfaces import SceneHealth

EMPTY_OPACITY = 0.01  # mean opacity of views of a prop below which nothing is there
# Mean opacity of the rays that meet the bounding sphere, from cameras that frame all of it. A solid ball reaches 0.92
# when it fills the sphere to 96% of the radius, where no outline is left to see; a fresh `paper` field has 0.84. It
# does not depend on how large the scene is within its sphere, unlike the opacity of a view that shows a part: there a
# fresh field has 0.97.
FULL_OPACITY = 0.92


def opacity_figures(opacity: Tensor) -> dict[str, float]:
    """opacity_mass: mean of (n, 1, h, w); alpha_entropy: mean binary entropy in nats, 0.69 for uniform fog of 1/2."""
    o = opacity.detach().clamp(1e-4, 1 - 1e-4)
    entropy = -(o * o.log() + (1 - o) * (1 - o).log())
    return {"opacity_mass": float(opacity.detach().mean()), "alpha_entropy": float(entropy.mean())}


def view_similarity(images: Tensor) -> float:
    """Mean correlation of opposite views (n even, 3, h, w, by rising azimuth), mirrored so that outlines match.

    Near 1 for a prop that looks the same from both sides, which hints at the Janus problem where the prop has a front.
    A figure only, never a verdict.
    """
    half = len(images) // 2
    front, back = images[:half].detach().flatten(1), images[half : 2 * half].detach().flip(-1).flatten(1)
    front, back = front - front.mean(1, keepdim=True), back - back.mean(1, keepdim=True)
    norm = (front.norm(dim=1) * back.norm(dim=1)).clamp(min=1e-9)
    return float(((front * back).sum(1) / norm).mean())


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no tensor holds NaN or infinity."""
    # A sum with NaN or infinity in it is never finite, and costs far less; one that overflowed is looked at closely.
    return all(bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all()) for tensor in tensors)


def check_run(opacity: Tensor, images: Tensor, filled: float, finite: bool) -> SceneHealth:
    """A verdict on a field from orbit views.

    opacity (n, 1, h, w), images (n, 3, h, w); finite: whether the field's weights are. filled: mean opacity of the rays
    that meet the bounding sphere, from cameras that frame all of it.
    """
    figures = opacity_figures(opacity) | {"view_similarity": view_similarity(images), "filled": filled}
    mass = figures["opacity_mass"]
    if not finite or not all(map(math.isfinite, figures.values())):
        return SceneHealth("diverged", figures, "the field holds NaN or infinity")
    if mass < EMPTY_OPACITY:
        return SceneHealth("empty", figures, f"mean opacity {mass:.3f}: the field is empty")
    if filled > FULL_OPACITY:
        return SceneHealth(
            "full", figures, f"mean opacity {filled:.3f} of all rays through the bounding sphere: the field fills it"
        )
    return SceneHealth("fine", figures, f"opacity {mass:.2f}, fog {figures['alpha_entropy']:.2f}")
