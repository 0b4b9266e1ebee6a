# SPDX-License-Identifier: GPL-3.0-or-later
"""Monitors of a run, because an SDS loss does not fall: is there anything, is it solid, is it finite, is it one-faced?"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .events import Health

EMPTY_OPACITY = 0.01  # mean opacity of upright views below which nothing is there
FULL_OPACITY = 0.92  # above which fog or a wall fills the picture
CHECK_SHARES = (0.15, 0.3, 0.6)  # of the run, where a verdict can still save time


def opacity_figures(opacity: Tensor) -> dict[str, float]:
    """opacity_mass: mean of (n, 1, h, w); alpha_entropy: mean binary entropy in nats, 0.69 is pure fog."""
    o = opacity.detach().clamp(1e-4, 1 - 1e-4)
    entropy = -(o * o.log() + (1 - o) * (1 - o).log())
    return {"opacity_mass": float(opacity.detach().mean()), "alpha_entropy": float(entropy.mean())}


def view_similarity(images: Tensor) -> float:
    """Mean correlation of opposite views (n even, 3, h, w, by rising azimuth), mirrored so that outlines match.

    Near 1 for a prop that looks the same from both sides: a hint at Janus faces for props that have a front, nothing
    for those that do not. Reported, never a reason to stop.
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


def check_run(step: int, opacity: Tensor, images: Tensor, finite: bool) -> Health:
    """A verdict on the field as orbit views (n, 3, h, w) with opacity (n, 1, h, w) show it."""
    figures = opacity_figures(opacity) | {"view_similarity": view_similarity(images)}
    mass = figures["opacity_mass"]
    if not finite or not all(map(torch.isfinite, map(torch.tensor, figures.values()))):
        return Health(step, "diverged", figures, "the field holds NaN or infinity")
    if mass < EMPTY_OPACITY:
        return Health(step, "empty", figures, f"mean opacity {mass:.3f}: the field is empty")
    if mass > FULL_OPACITY:
        return Health(step, "full", figures, f"mean opacity {mass:.3f}: the field fills the picture")
    return Health(step, "fine", figures, f"opacity {mass:.2f}, fog {figures['alpha_entropy']:.2f}")
