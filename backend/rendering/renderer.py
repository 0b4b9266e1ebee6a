# SPDX-License-Identifier: GPL-3.0-or-later
"""Differentiable volume rendering of a field: occupied samples only, color only where it is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..cameras.poses import Cameras, camera_rays
from ..config.schema import RenderConfig
from ..fields.interfaces import Field
from .marching import DenseMarch, Marcher
from .occupancy import OccupancyGrid
from .sampling import draw_jitter
from .shading import Shading, shade


@dataclass(frozen=True)
class Rendering:
    """n views of r x r pixels.

    image (n, 3, r, r) in [0, 1] on the background; opacity (n, 1, r, r); depth (n, 1, r, r) opacity-normalized distance
    along the ray, 0 where empty; normals (n, 3, r, r) weighted, world frame, or None; orientation (n,) eq 10 summed
    over each view's rays, 0 without normals; sample_count: number of densities queried.
    """

    image: Tensor
    opacity: Tensor
    depth: Tensor
    normals: Tensor | None
    orientation: Tensor
    sample_count: int


@dataclass(frozen=True)
class RayBatch:
    """Rays of n views, one view after another: origins and unit directions (rays, 3); jitter (rays,), None: 1/2."""

    origins: Tensor
    directions: Tensor
    jitter: Tensor | None


@dataclass(frozen=True)
class Lighting:
    """One shading a view, and the position of its point light, lights (n, 3)."""

    shadings: Sequence[Shading]
    lights: Tensor

    def numbers(self) -> Tensor:
        """(n, 3): ambient, diffuse, and 1 for textureless."""
        rows = [(s.ambient, s.diffuse, float(s.kind == "textureless")) for s in self.shadings]
        return self.lights.new_tensor(rows)


@dataclass(frozen=True)
class RaySums:
    """Sums over each ray's samples, weighted as in eq 5.

    color (rays, 3); normal (rays, 3) or None; opacity (rays,); depth (rays,) opacity-normalized distance; facing_away
    (rays,) eq 10, 0 without normals; sample_count: number of densities queried.
    """

    color: Tensor
    normal: Tensor | None
    opacity: Tensor
    depth: Tensor
    facing_away: Tensor
    sample_count: int


class Renderer(nn.Module):
    """Holds the sampling numbers and the occupancy grid; knows fields and lights, nothing of guidance.

    `marcher` finds the samples of rays and composites them: one of `marching.MARCHERS`. `renderer_choice` builds the
    fastest renderer of a field on a device.
    """

    def __init__(self, config: RenderConfig, bounding_radius: float, marcher: Marcher = DenseMarch) -> None:
        super().__init__()
        self.config, self.marcher, self.bounding_radius = config, marcher, bounding_radius
        self.step_length = 2 * bounding_radius / config.samples  # scene units
        self.occupancy = OccupancyGrid(config.occupancy_resolution, bounding_radius, config.occupancy_threshold)

    def update_occupancy(self, field: Field, generator: torch.Generator) -> None:
        """Refresh the occupancy grid from the field as it is now."""
        self.occupancy.update(field, self.step_length, generator)

    def draw_jitter(self, cameras: Cameras, resolution: int, generator: torch.Generator) -> Tensor:
        """How far into its step each ray's samples lie, (n, r*r) in [0, 1); 1/2 without `render.stratified`."""
        n, pixels = len(cameras), resolution * resolution
        if not self.config.stratified:
            return torch.full((n, pixels), 0.5, device=cameras.position.device)
        rays = camera_rays(cameras, resolution)
        origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
        return draw_jitter(origins, directions, self.bounding_radius, generator).view(n, pixels)

    def render(
        self,
        field: Field,
        background: Tensor,
        cameras: Cameras,
        shadings: Sequence[Shading],
        lights: Tensor,
        resolution: int,
        jitter: Tensor | None = None,
        with_normals: bool = False,
    ) -> Rendering:
        """Render n views: background (n, r*r, 3), one shading a view, lights (n, 3).

        jitter (n, r*r) from `draw_jitter` shifts the samples (training); None renders mid-points (evaluation). Normals,
        and with them eq 10, come with any view that has diffuse light, or for all views when asked for.
        """
        n = len(cameras)
        rays = camera_rays(cameras, resolution)
        batch = RayBatch(
            rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3), None if jitter is None else jitter.reshape(-1)
        )
        with_normals = with_normals or any(s.diffuse > 0 for s in shadings)
        sums = self.sums_along(field, batch, Lighting(shadings, lights), with_normals)
        image = sums.color + (1 - sums.opacity[:, None]) * background.reshape(-1, 3)

        def as_images(values: Tensor) -> Tensor:
            return values.view(n, resolution, resolution, -1).permute(0, 3, 1, 2)  # (n, c, r, r)

        return Rendering(
            as_images(image),
            as_images(sums.opacity),
            as_images(torch.where(sums.opacity.detach() > 1e-3, sums.depth, torch.zeros_like(sums.depth))),
            None if sums.normal is None else as_images(sums.normal),
            sums.facing_away.view(n, -1).sum(1),
            sums.sample_count,
        )

    def sums_along(self, field: Field, rays: RayBatch, lighting: Lighting, with_normals: bool) -> RaySums:
        """Eq 5 along each ray, with the color of eq 7."""
        count, directions = len(rays.origins), rays.directions
        march = self.marcher(
            rays.origins, directions, self.occupancy, self.config.samples, self.step_length, rays.jitter
        )
        whole = None if field.separate_density else field.query(march.mu, with_normals)
        composed = march.composite(field.density(march.mu) if whole is None else whole.tau)

        seen_mask = (composed.weights.detach() > self.config.smallest_weight) & (
            composed.transmittance.detach() > self.config.early_stop_transmittance
        )
        seen = seen_mask.nonzero(as_tuple=True)[0]
        seen_mu = march.mu[seen]
        if whole is None:
            rho, normal = field.appearance(seen_mu, with_normals)
        else:
            rho, normal = whole.rho[seen], None if whole.normal is None else whole.normal[seen]
        ray = march.ray_of(seen)
        view = torch.div(ray * len(lighting.shadings), count, rounding_mode="floor")
        weight = composed.weights[seen, None]  # (s, 1)

        color = self._color(rho, normal, seen_mu, view, lighting)
        gathered = torch.cat([weight * color] + ([weight * normal] if normal is not None else []), dim=-1)
        totals = torch.zeros(count, gathered.shape[-1], device=gathered.device).index_add(0, ray, gathered)
        facing_away = torch.zeros(count, device=gathered.device)
        if normal is not None:
            # eq 10, with v the ray's direction: normals that face away from the camera where they are visible.
            away = (normal * directions[ray]).sum(-1).clamp(min=0).square()
            facing_away = facing_away.index_add(0, ray, weight[:, 0].detach() * away)
        return RaySums(
            totals[:, :3],
            totals[:, 3:] if normal is not None else None,
            composed.opacity,
            composed.depth,
            facing_away,
            len(march.mu),
        )

    @staticmethod
    def _color(rho: Tensor, normal: Tensor | None, mu: Tensor, view: Tensor, lighting: Lighting) -> Tensor:
        """Shaded color (s, 3) of samples that belong to the given views (s,)."""
        if normal is None:
            return rho
        numbers = lighting.numbers()[view]
        albedo = torch.where(numbers[:, 2:] > 0, torch.ones_like(rho), rho)
        return shade(albedo, normal, mu, lighting.lights[view], numbers[:, :1], numbers[:, 1:2])
