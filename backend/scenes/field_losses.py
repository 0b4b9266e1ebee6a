# SPDX-License-Identifier: GPL-3.0-or-later
"""Penalties on a rendering; reductions as in docs/developer/conventions.md: summed over a view's rays, averaged over views."""

from __future__ import annotations

import torch
from torch import Tensor


def opacity_loss(opacity: Tensor) -> Tensor:
    """L_opacity = sqrt((sum_i w_i)^2 + 0.01) (appendix A.2) of opacity (n, 1, h, w): a scalar."""
    return torch.sqrt(opacity.square() + 0.01).sum() / len(opacity)


def transmittance_loss(opacity: Tensor, target_opacity: float) -> Tensor:
    """-min(tau, mean_pixels (1 - opacity)), tau = 1 - target (Dream Fields, eq 5), of opacity (n, 1, h, w): a scalar, mean of views.

    Views that are clearer than the target are left alone, or an object would vanish.
    """
    clear = 1 - opacity.flatten(1).mean(1)
    return -clear.clamp(max=1 - target_opacity).mean()


def opacity_entropy(opacity: Tensor) -> Tensor:
    """Binary entropy -(o log o + (1 - o) log(1 - o)) in nats of opacity (n, 1, h, w): fog costs, clear and solid do not.

    Clamped away from 0 and 1, where the gradient is infinite.
    """
    o = opacity.clamp(1e-4, 1 - 1e-4)
    return -(o * o.log() + (1 - o) * (1 - o).log()).sum() / len(opacity)
