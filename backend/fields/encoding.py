# SPDX-License-Identifier: GPL-3.0-or-later
"""Integrated positional encoding of isotropic Gaussians (mip-NeRF; eq 8 for the covariance)."""

from __future__ import annotations

import torch
from torch import Tensor


def integrated_encoding(mu: Tensor, std: float, levels: int) -> Tensor:
    """E[sin(2^l x)], E[cos(2^l x)] for x ~ N(mu, std^2 I) and l < levels: e^(-std^2 4^l / 2) sin(2^l mu), and cos.

    mu (m, 3), std = lambda_Sigma in scene units. Returns (m, 6 levels): sines of all levels, then cosines.
    """
    scales = 2.0 ** torch.arange(levels, device=mu.device, dtype=mu.dtype)
    damping = torch.exp(-0.5 * (std * scales).square())
    angles = mu[..., None, :] * scales[:, None]  # (m, levels, 3)
    damped = damping[:, None]
    return torch.cat([(damped * angles.sin()).flatten(-2), (damped * angles.cos()).flatten(-2)], dim=-1)
