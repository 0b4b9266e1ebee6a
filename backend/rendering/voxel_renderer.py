# SPDX-License-Identifier: GPL-3.0-or-later
"""The renderer of voxel fields on a CPU: compiled loops over rays instead of arrays of all samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..config.schema import RenderConfig
from ..fields.compiled_loops import array, run_parts
from ..fields.dense_grids import DenseGrids
from ..fields.interfaces import Field
from . import voxel_kernels as kernels
from .renderer import Lighting, RayBatch, RaySums, Renderer
from .sampling import sphere_interval

# Parts that the rays are split into, whatever the number of threads, so that sums of gradients do not depend on it.
PARTS = 4
ROW = 8  # numbers of a vertex's appearance, padded to what a vector register holds
ACTIVATIONS = {"exp": kernels.EXP, "softplus": kernels.SOFTPLUS}


@dataclass(frozen=True)
class Plan:
    """Everything that forward and backward loops share: the rays, the light of each view, the numbers of sampling."""

    rays: tuple[Any, ...]  # origins, directions, near, meets, shift, step, radius, occupied, samples
    shading: tuple[Any, ...]  # size, activation, scale, view of each ray, lighting, lights, least weight, transmittance
    count: int
    memory: dict[tuple[int, ...], Tensor]

    def part_gradients(self, *grids: Tensor) -> list[Tensor]:
        """An array (PARTS, *grid.shape) for each grid, kept from step to step: to give and take it costs as much time
        as to fill it.
        """
        return [self.memory.setdefault(tuple(grid.shape), grid.new_empty(PARTS, *grid.shape)) for grid in grids]

    def bounds(self, part: int) -> tuple[int, int]:
        """First ray of a part, and the first after it."""
        return part * self.count // PARTS, (part + 1) * self.count // PARTS


class GridSums(torch.autograd.Function):
    """Sums along rays (rays, COLUMNS) of flat grids: raw density (vertices,), appearance (vertices, ROW)."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, appearance: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(raw, appearance)
        ctx.plan = plan
        grids = array(raw), array(appearance)
        sums = np.empty((plan.count, kernels.COLUMNS), np.float32)
        found = run_parts(
            lambda part: kernels.render_rays(*plan.bounds(part), *plan.rays, *grids, *plan.shading, sums), PARTS
        )
        count = torch.tensor(sum(found))
        ctx.mark_non_differentiable(count)
        return torch.from_numpy(sums), count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _count: Tensor) -> tuple[Tensor, Tensor, None]:
        raw, appearance = ctx.saved_tensors
        plan, grids, given = ctx.plan, (array(raw), array(appearance)), array(gradient)

        own = plan.part_gradients(raw, appearance)

        def run_part(part: int) -> None:
            mine = [gradient[part].zero_() for gradient in own]
            kernels.backpropagate_rays(
                *plan.bounds(part), *plan.rays, *grids, *plan.shading, given, *(array(gradient) for gradient in mine)
            )

        run_parts(run_part, PARTS)
        return own[0].sum(0), own[1].sum(0), None


class VoxelRenderer(Renderer):
    """`Renderer` with compiled loops where the field is dense grids (`Field.dense_grids`), on the CPU."""

    def __init__(self, config: RenderConfig, bounding_radius: float) -> None:
        super().__init__(config, bounding_radius)
        self._memory: dict[tuple[int, ...], Tensor] = {}

    def sums_along(self, field: Field, rays: RayBatch, lighting: Lighting, with_normals: bool) -> RaySums:
        """See `Renderer.sums_along`."""
        grids = field.dense_grids(with_normals)
        if grids is None:
            return super().sums_along(field, rays, lighting, with_normals)
        appearance = grids.appearance[0].flatten(1)
        padding = appearance.new_zeros(ROW - len(appearance), appearance.shape[1])
        flat = torch.cat([appearance, padding]).T.contiguous()  # (vertices, ROW): a corner's numbers in one load
        sums, count = GridSums.apply(grids.raw.reshape(-1), flat, self._plan(grids, rays, lighting, with_normals))
        opacity, distance = sums[:, kernels.OPACITY], sums[:, kernels.DISTANCE].detach()
        return RaySums(
            color=sums[:, :3],
            normal=sums[:, 3:6] if with_normals else None,
            opacity=opacity,
            depth=distance / opacity.detach().clamp(min=1e-6),
            facing_away=sums[:, kernels.FACING_AWAY],
            sample_count=int(count),
        )

    def _plan(self, grids: DenseGrids, rays: RayBatch, lighting: Lighting, with_normals: bool) -> Plan:
        near, _, meets = sphere_interval(rays.origins, rays.directions, self.bounding_radius)
        shift = torch.full_like(near, 0.5) if rays.jitter is None else rays.jitter
        occupied = self.occupancy.occupied if self.occupancy.resolution else torch.zeros(0, 0, 0, dtype=torch.bool)
        config, f32 = self.config, np.float32
        views = torch.arange(len(lighting.shadings)).repeat_interleave(len(near) // len(lighting.shadings))
        return Plan(
            rays=(
                *(array(values) for values in (rays.origins, rays.directions, near, meets, shift)),
                f32(self.step_length),
                f32(self.bounding_radius),
                array(occupied),
                config.samples,
            ),
            shading=(
                grids.raw.shape[-1],
                ACTIVATIONS[grids.activation],
                f32(grids.scale),
                array(views),
                array(lighting.numbers()),
                array(lighting.lights),
                with_normals,
                f32(config.smallest_weight),
                f32(config.early_stop_transmittance),
            ),
            count=len(near),
            memory=self._memory,
        )
