# SPDX-License-Identifier: GPL-3.0-or-later
"""From a network's raw output to density: activations, and the bias that starts a run as a blob (eq 9)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..config.schema import FieldConfig

LARGEST_EXPONENT = 11.0  # exp(11) = 6e4 per scene unit is opaque within 1e-4; beyond it only gradients overflow


def safe_exp(raw: Tensor) -> Tensor:
    """exp(min(raw, 11)), so that one bad step cannot turn densities into infinities and weights into NaN."""
    return torch.exp(raw.clamp(max=LARGEST_EXPONENT))


def activate_density(raw: Tensor, activation: Literal["exp", "softplus"], scale: float) -> Tensor:
    """tau = scale * exp(raw) or scale * softplus(raw), in 1 / scene unit."""
    return scale * (safe_exp(raw) if activation == "exp" else functional.softplus(raw))


def biased_density(raw: Tensor, bias: Tensor, config: FieldConfig) -> Tensor:
    """tau from raw values and the blob of `density_bias`, any one shape, in 1 / scene unit.

    `density_bias_on="density"`: scale * act(raw) + max(0, bias), as eq 9 is written; the network cannot take the blob
    away. "raw": scale * act(raw + bias).
    """
    if config.density_bias_on == "raw":
        return activate_density(raw + bias, config.density_activation, config.density_scale)
    return activate_density(raw, config.density_activation, config.density_scale) + bias.clamp(min=0)


def normal_potential(raw: Tensor, bias: Tensor, config: FieldConfig) -> Tensor:
    """A function of position whose gradient has the direction of grad tau, of raw values and the blob, any one shape.

    Unlike tau itself it keeps a gradient where `safe_exp` is cut off.
    """
    if config.density_bias_on == "raw":
        return raw + bias  # the activation is monotone
    if config.density_activation == "softplus":
        return biased_density(raw, bias, config)
    cut_off = (raw - raw.clamp(max=LARGEST_EXPONENT)).detach()
    return config.density_scale * torch.exp(raw - cut_off) + bias.clamp(min=0)


def density_bias(mu: Tensor, config: FieldConfig, progress: float) -> Tensor:
    """The blob at mu (..., 3), before `biased_density` adds it: (...,).

    lambda exp(-|mu|^2 / (2 sigma^2)) (eq 9), or lambda (1 - |mu| / sigma). It fades linearly to zero over
    `density_bias_fade_share` of the run if that is set: a blob that stays keeps holes shut.
    """
    fade = 1.0
    if config.density_bias_fade_share > 0:
        fade = max(0.0, 1.0 - progress / config.density_bias_fade_share)
    scale, width = config.density_bias_scale * fade, config.density_bias_width
    if config.density_bias == "gaussian":
        return scale * torch.exp(-mu.square().sum(-1) / (2 * width**2))
    return scale * (1 - mu.norm(dim=-1) / width)
