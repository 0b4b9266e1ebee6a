# SPDX-License-Identifier: GPL-3.0-or-later
"""Differentiable volume rendering of a field: occupied samples only, colour only where it is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import torch
from torch import Tensor, nn

from dreamwright.backend.cameras import Cameras, camera_rays
from dreamwright.backend.config import RenderConfig
from dreamwright.backend.fields.contract import Field
from dreamwright.backend.rendering.compositing import rendering_weights
from dreamwright.backend.rendering.occupancy import OccupancyGrid
from dreamwright.backend.rendering.sampling import sample_rays
from dreamwright.backend.rendering.shading import Shading, shade

SMALLEST_WEIGHT = 1e-4  # samples that contribute less get no colour


@dataclass(frozen=True)
class Rendering:
    """n views of r x r pixels.

    image (n, 3, r, r) in [0, 1] on the background; opacity (n, 1, r, r); depth (n, 1, r, r) opacity-normalised distance
    along the ray, 0 where empty; normals (n, 3, r, r) weighted, world frame, or None; orientation (n,) eq 10 summed over
    each view's rays, 0 without normals; sample_count: densities actually queried.
    """

    image: Tensor
    opacity: Tensor
    depth: Tensor
    normals: Tensor | None
    orientation: Tensor
    sample_count: int


class Renderer(nn.Module):
    """Holds the sampling numbers and the occupancy grid; knows fields and lights, nothing of guidance."""

    def __init__(self, config: RenderConfig, bounding_radius: float) -> None:
        super().__init__()
        self.config = config
        self.step_length = 2 * bounding_radius / config.samples  # scene units
        self.occupancy = OccupancyGrid(config.occupancy_resolution, bounding_radius, config.occupancy_threshold)

    def update_occupancy(self, field: Field, generator: torch.Generator) -> None:
        """Refresh the occupancy grid from the field as it is now."""
        self.occupancy.update(field, self.step_length, generator)

    def render(
        self,
        field: Field,
        background: Tensor,
        cameras: Cameras,
        shadings: Sequence[Shading],
        lights: Tensor,
        resolution: int,
        generator: torch.Generator | None = None,
    ) -> Rendering:
        """Render n views: background (n, r*r, 3), one shading a view, lights (n, 3).

        A generator jitters the samples (training); None renders deterministically (evaluation).
        """
        n, pixels = len(cameras), resolution * resolution
        rays = camera_rays(cameras, resolution)
        origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
        jitter = generator if self.config.stratified else None
        samples = sample_rays(origins, directions, field.bounding_radius, self.config.samples, self.step_length, jitter)
        ray_origins, ray_directions = origins[samples.ray], directions[samples.ray]  # (rays, 3)
        mu = ray_origins[:, None] + samples.t_mids[..., None] * ray_directions[:, None]  # (rays, samples, 3)
        kept = (mu.square().sum(-1) < field.bounding_radius**2).view(-1)
        if self.occupancy.resolution:
            kept = kept & self.occupancy.keeps(mu.view(-1, 3))
        index = kept.nonzero(as_tuple=True)[0]  # (m,)
        mu_kept = mu.view(-1, 3)[index]
        with_normals = any(s.diffuse > 0 for s in shadings)

        whole = None if field.separate_density else field.query(mu_kept, with_normals)
        tau = field.density(mu_kept) if whole is None else whole.tau
        dense = torch.zeros(kept.shape, device=tau.device, dtype=tau.dtype).index_put((index,), tau)
        weights, transmittance = rendering_weights(dense.view(samples.t_mids.shape), samples.deltas)
        flat = weights.view(-1)

        seen_mask = (flat.detach()[index] > SMALLEST_WEIGHT) & (
            transmittance.detach().view(-1)[index] > self.config.early_stop_transmittance
        )
        seen = seen_mask.nonzero(as_tuple=True)[0]  # into the kept samples
        seen_index, seen_mu = index[seen], mu_kept[seen]
        if whole is None:
            rho, normal = field.appearance(seen_mu, with_normals)
        else:
            rho, normal = whole.rho[seen], None if whole.normal is None else whole.normal[seen]
        seen_ray = torch.div(seen_index, self.config.samples, rounding_mode="floor")  # into the rays that meet the sphere
        pixel = samples.ray[seen_ray]
        view = torch.div(pixel, pixels, rounding_mode="floor")
        weight = flat[seen_index, None]  # (s, 1)

        colour = self._colour(rho, normal, seen_mu, view, shadings, lights)
        gathered = torch.cat([weight * colour] + ([weight * normal] if normal is not None else []), dim=-1)
        totals = torch.zeros(n * pixels, gathered.shape[-1], device=gathered.device).index_add(0, pixel, gathered)
        opacity = torch.zeros(n * pixels, device=flat.device).index_add(0, samples.ray, weights.sum(-1))
        depth_sum = (weights.detach() * samples.t_mids).sum(-1) / weights.detach().sum(-1).clamp(min=1e-6)
        depth = torch.zeros(n * pixels, device=flat.device).index_add(0, samples.ray, depth_sum)
        depth = torch.where(opacity.detach() > 1e-3, depth, torch.zeros_like(depth))
        image = totals[:, :3] + (1 - opacity[:, None]) * background.reshape(-1, 3)

        orientation = torch.zeros(n, device=flat.device)
        if normal is not None:
            # eq 10, with v the ray's direction: normals that face away from the camera where they are visible.
            facing_away = (normal * ray_directions[seen_ray]).sum(-1).clamp(min=0).square()
            orientation = orientation.index_add(0, view, weight[:, 0].detach() * facing_away)

        def picture(values: Tensor) -> Tensor:
            return values.view(n, resolution, resolution, -1).permute(0, 3, 1, 2)  # (n, c, r, r)

        return Rendering(
            picture(image),
            picture(opacity),
            picture(depth),
            picture(totals[:, 3:]) if normal is not None else None,
            orientation,
            len(index),
        )

    @staticmethod
    def _colour(
        rho: Tensor, normal: Tensor | None, mu: Tensor, view: Tensor, shadings: Sequence[Shading], lights: Tensor
    ) -> Tensor:
        """Shaded colour (s, 3) of samples that belong to the given views (s,)."""
        if normal is None:
            return rho
        numbers = rho.new_tensor([(s.ambient, s.diffuse, float(s.kind == "textureless")) for s in shadings])[view]
        albedo = torch.where(numbers[:, 2:] > 0, torch.ones_like(rho), rho)
        return shade(albedo, normal, mu, lights[view], numbers[:, :1], numbers[:, 1:2])
