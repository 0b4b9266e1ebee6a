# SPDX-License-Identifier: GPL-3.0-or-later
"""Sample positions on rays: even steps inside the bounding sphere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RaySamples:
    """Samples of rays that meet the sphere: t_mids (rays, samples) distances, deltas (rays, 1), ray (rays,) indices."""

    t_mids: Tensor
    deltas: Tensor
    ray: Tensor


def sphere_interval(origins: Tensor, directions: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Where unit rays (rays, 3) enter and leave the sphere at the origin, and whether they meet it.

    Returns near, far and a mask, each (rays,); distances in scene units.
    """
    along = -(origins * directions).sum(-1)
    closest2 = (origins * origins).sum(-1) - along * along
    half2 = radius * radius - closest2
    half = half2.clamp(min=0).sqrt()
    near, far = (along - half).clamp(min=0), along + half
    return near, far, (half2 > 0) & (far > near)


def sample_rays(
    origins: Tensor, directions: Tensor, radius: float, samples: int, step: float, jitter: Tensor | None
) -> RaySamples:
    """Samples a `step` (scene units) apart from where each ray enters the sphere, at most `samples`.

    jitter (rays,) in [0, 1) is the position of a ray's samples inside their steps (training); None means mid-points
    (evaluation). One step length for all rays makes alpha comparable, which the occupancy grid's threshold needs.
    Samples beyond the far side are not removed here; the marcher drops what lies outside the sphere.
    """
    near, _, meets = sphere_interval(origins, directions, radius)
    ray = meets.nonzero(as_tuple=True)[0]
    shift = torch.full((len(ray), 1), 0.5, device=origins.device) if jitter is None else jitter[ray, None]
    t_mids = near[ray, None] + (torch.arange(samples, device=origins.device) + shift) * step  # (rays, samples)
    return RaySamples(t_mids, torch.full_like(t_mids[:, :1], step), ray)


def draw_jitter(origins: Tensor, directions: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """Jitter (rays,) uniform in [0, 1), drawn for the rays that meet the sphere; 1/2 for the others."""
    _, _, meets = sphere_interval(origins, directions, radius)
    ray = meets.nonzero(as_tuple=True)[0]
    jitter = torch.full((len(origins),), 0.5, dtype=origins.dtype, device=origins.device)
    jitter[ray] = torch.rand(len(ray), 1, generator=generator).to(origins)[:, 0]
    return jitter
