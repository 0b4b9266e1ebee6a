# SPDX-License-Identifier: GPL-3.0-or-later
"""Penalties on a rendering; reductions as in docs/conventions.md: summed over a view's rays, averaged over views."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config.schedules import exponential, linear
from ..config.schema import RegularizerConfig
from ..fields.interfaces import Field
from ..rendering.renderer import Rendering


def opacity_loss(opacity: Tensor) -> Tensor:
    """L_opacity = sqrt((sum_i w_i)^2 + 0.01) (appendix A.2) of opacity (n, 1, h, w): a scalar."""
    return torch.sqrt(opacity.square() + 0.01).sum() / len(opacity)


def transmittance_loss(opacity: Tensor, target_opacity: float) -> Tensor:
    """-min(tau, mean_pixels (1 - opacity)), tau = 1 - target (Dream Fields, eq 5).

    Of opacity (n, 1, h, w): a scalar, the mean of the views. No gradient for views that are clearer than the target; an
    object would vanish otherwise.
    """
    clear = 1 - opacity.flatten(1).mean(1)
    return -clear.clamp(max=1 - target_opacity).mean()


def opacity_entropy(opacity: Tensor) -> Tensor:
    """Binary entropy -(o log o + (1 - o) log(1 - o)) of opacity (n, 1, h, w), nats: high for fog only.

    Clamped away from 0 and 1, where the gradient is infinite.
    """
    o = opacity.clamp(1e-4, 1 - 1e-4)
    return -(o * o.log() + (1 - o) * (1 - o).log()).sum() / len(opacity)


def orientation_weight(config: RegularizerConfig, progress: float) -> float:
    """The weight of eq 10 at `progress` in [0, 1]; normals are needed in every view while it is above 0."""
    return linear(
        config.orientation_start, config.orientation_end, config.orientation_share, progress, config.orientation_begin
    )


def opacity_weight(config: RegularizerConfig, progress: float) -> float:
    """The weight of `opacity_loss` at `progress` in [0, 1]."""
    return linear(config.opacity_start, config.opacity_end, config.opacity_share, progress, config.opacity_begin)


def entropy_weight(config: RegularizerConfig, progress: float) -> float:
    """The weight of `opacity_entropy` at `progress` in [0, 1]."""
    return linear(config.entropy_start, config.entropy_end, config.entropy_share, progress, config.entropy_begin)


def field_penalties(config: RegularizerConfig, rendering: Rendering, field: Field, progress: float) -> Tensor:
    """The weighted regularizers (appendix A.2) at `progress` in [0, 1]: a scalar."""
    opacity, entropy = opacity_weight(config, progress), entropy_weight(config, progress)
    total = orientation_weight(config, progress) * rendering.orientation.sum() / len(rendering.image)
    if opacity > 0:
        total = total + opacity * opacity_loss(rendering.opacity)
    if entropy > 0:
        total = total + entropy * opacity_entropy(rendering.opacity)
    if config.transmittance > 0:
        target = exponential(
            config.target_opacity_start, config.target_opacity_end, config.target_opacity_share, progress
        )
        total = total + config.transmittance * transmittance_loss(rendering.opacity, target)
    if config.smoothness > 0:
        total = total + config.smoothness * field.smoothness()
    return total
