# SPDX-License-Identifier: GPL-3.0-or-later
"""Occupancy grid: cells in which the field may be visible. Samples in other cells are skipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..fields.interfaces import Field

DECAY = 0.7  # of the stored density between updates, so that a cell is dropped only after it stays empty for a few


class OccupancyGrid(nn.Module):
    """Cells of the cube around the bounding sphere; resolution 0 keeps every sample.

    `threshold` is an opacity: a cell is empty while alpha over one sample step stays below it. So k skipped samples of
    a ray hide at most 1 - (1 - threshold)^k of opacity from the image and from the losses on it.
    """

    density: Tensor
    occupied: Tensor

    def __init__(self, resolution: int, bounding_radius: float, threshold: float) -> None:
        super().__init__()
        self.resolution, self.bounding_radius, self.threshold = resolution, bounding_radius, threshold
        cells = (max(1, resolution),) * 3
        self.register_buffer("density", torch.zeros(cells))
        self.register_buffer("occupied", torch.ones(cells, dtype=torch.bool))

    @torch.no_grad()
    def update(self, field: Field, step_length: float, generator: torch.Generator) -> None:
        """Sample the density at one random point a cell; keep cells whose alpha over one step passes the threshold.

        Neighbors of kept cells are kept as well, so that a surface can grow. A grid without any kept cell keeps all of
        them, so that an empty field still receives gradients; the monitors decide whether a run is empty.
        """
        if self.resolution == 0:
            return
        n = self.resolution
        axis = torch.arange(n, device=self.density.device, dtype=torch.float32)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        corner = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
        jitter = torch.rand(corner.shape, generator=generator).to(corner)
        mu = ((corner + jitter) / n * 2 - 1) * self.bounding_radius
        tau = field.density(mu).view(n, n, n)
        self.density.mul_(DECAY).clamp_(min=0).copy_(torch.maximum(self.density, tau))
        visible = -torch.expm1(-self.density * step_length) > self.threshold
        grown = functional.max_pool3d(visible[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0
        self.occupied.copy_(grown if bool(grown.any()) else torch.ones_like(grown))

    def contains(self, mu: Tensor) -> Tensor:
        """Mask (m,) of the points mu (m, 3), scene units, in kept cells."""
        if self.resolution == 0:
            return torch.ones(len(mu), dtype=torch.bool, device=mu.device)
        n = self.resolution
        cell = ((mu / self.bounding_radius + 1) * (0.5 * n)).long().clamp(0, n - 1)
        return self.occupied.view(-1)[(cell[:, 2] * n + cell[:, 1]) * n + cell[:, 0]]
