# SPDX-License-Identifier: GPL-3.0-or-later
"""Alpha compositing along rays (eq 5)."""

from __future__ import annotations

import torch
from torch import Tensor


def rendering_weights(tau: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor]:
    """w_i = alpha_i prod_{j<i}(1 - alpha_j) with alpha_i = 1 - exp(-tau_i delta_i) (eq 5).

    tau (rays, samples) density in 1 / scene unit, deltas (rays, samples) in scene units. Returns weights and the
    transmittance in front of each sample, both (rays, samples). Computed from cumulated optical depth, so that opaque
    samples stay differentiable.
    """
    optical = tau * deltas
    depth_before = torch.cumsum(optical, dim=-1) - optical
    transmittance = torch.exp(-depth_before)
    return transmittance * -torch.expm1(-optical), transmittance


def packed_weights(tau: Tensor, deltas: Tensor | float, ray: Tensor, rays: int) -> tuple[Tensor, Tensor]:
    """Eq 5 for samples that lie one after another: tau (m,), ray (m,) rising indices below `rays`, deltas (m,) or one.

    Returns weights and the transmittance in front of each sample, both (m,), like `rendering_weights`. One running sum
    goes through all rays, in float64, so that what the rays before have gathered costs this one no digits.
    """
    optical = tau * deltas
    summed = torch.cumsum(optical.double(), dim=0) - optical
    counts = torch.bincount(ray, minlength=rays)
    first = torch.cumsum(counts, dim=0) - counts  # index of each ray's first sample
    depth_before = (summed - summed[first[ray]]).to(tau.dtype)
    transmittance = torch.exp(-depth_before)
    return transmittance * -torch.expm1(-optical), transmittance
