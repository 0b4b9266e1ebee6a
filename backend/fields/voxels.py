# SPDX-License-Identifier: GPL-3.0-or-later
"""Multi-resolution voxel grids: a field that a CPU optimizes in minutes.

The raw value at a point is the sum of trilinear grids of several resolutions, so that Adam's steps move coarse shape
first and detail after (what a hash grid's levels do). Once a step the levels are summed into one dense grid, and
normals are central differences of the lightly smoothed density there, looked up like a color: no second-order
gradients, no ripples of the trilinear cells.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config.schema import FieldConfig, OptimizerConfig
from .dense_grids import DenseGrids
from .density import activate_density, biased_density, density_bias, normal_potential
from .interfaces import Field, FieldSample


def interpolation_matrix(size: int, larger: int) -> Tensor:
    """(larger, size): row i holds the two weights with which vertex i of `larger` ones, first and last on those of
    `size`, is interpolated linearly. float32.
    """
    place = torch.linspace(0.0, size - 1.0, larger, dtype=torch.float64)
    return (1 - (place[:, None] - torch.arange(size)).abs()).clamp(min=0).float()


def smoothing_matrix(size: int) -> Tensor:
    """(size, size): the mean of each vertex of an axis and its two neighbors, edges repeated. float64."""
    neighbors = torch.arange(size)[:, None] + torch.tensor([-1, 0, 1])
    chosen = functional.one_hot(neighbors.clamp(0, size - 1), size)  # (size, 3, size)
    return chosen.double().mean(1)


def difference_matrix(size: int) -> Tensor:
    """(size, size): the next vertex of an axis minus the one before, edges repeated. float64."""
    step = torch.arange(size)
    after, before = (functional.one_hot((step + d).clamp(0, size - 1), size) for d in (1, -1))
    return (after - before).double()


def along_axes(grid: Tensor, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """A matrix (R, r) applied along each axis of a (1, C, r, r, r) grid: (1, C, R, R, R).

    Matrix products are several times as fast on a CPU, there and back, as `interpolate` and pooling, which gather.
    """
    _, channels, size, _, _ = grid.shape
    planes = y @ (grid @ x.T)  # x, then y: (1, C, r, R, R)
    larger = planes.shape[-1]
    return (z @ planes.reshape(1, channels, size, -1)).view(1, channels, len(z), larger, larger)


class VoxelField(Field):
    """Grids over the cube around the bounding sphere, vertices on its faces; index order (z, y, x)."""

    separate_density = True
    vertices: Tensor
    smooth: Tensor
    smooth_slope: Tensor

    def __init__(self, config: FieldConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.bounding_radius = config.bounding_radius
        self.resolution = max(config.voxel_resolutions)
        self.raw_density = nn.ParameterList()
        self.raw_albedo = nn.ParameterList()
        for r in config.voxel_resolutions:
            self.raw_density.append(nn.Parameter(0.02 * torch.randn(1, 1, r, r, r, generator=generator)))
            self.raw_albedo.append(nn.Parameter(0.02 * torch.randn(1, 3, r, r, r, generator=generator)))
        axis = torch.linspace(-self.bounding_radius, self.bounding_radius, self.resolution)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        self.register_buffer("vertices", torch.stack([x, y, z], dim=-1), persistent=False)  # (R, R, R, 3)
        for r in set(config.voxel_resolutions) - {self.resolution}:
            self.register_buffer(f"from_{r}", interpolation_matrix(r, self.resolution), persistent=False)
        smooth = smoothing_matrix(self.resolution)
        self.register_buffer("smooth", smooth.float(), persistent=False)
        self.register_buffer("smooth_slope", (difference_matrix(self.resolution) @ smooth).float(), persistent=False)
        self.progress = 0.0
        self._raw: Tensor | None = None
        self._albedo: Tensor | None = None
        self._normals: Tensor | None = None

    def begin_step(self, progress: float) -> None:
        self.progress = progress
        self._raw = self._sum(self.raw_density)
        if self.config.density_bias_on == "raw":  # interpolated with the grid, so that a lookup is all a query costs
            self._raw = self._raw + self._bias_grid()
        self._albedo = self._sum(self.raw_albedo)
        self._normals = None  # made on demand: albedo views need none

    def _bias_grid(self) -> Tensor:
        return density_bias(self.vertices, self.config, self.progress)[None, None]

    def _sum(self, grids: nn.ParameterList) -> Tensor:
        levels = [
            g if g.shape[-1] == self.resolution else along_axes(g, *[getattr(self, f"from_{g.shape[-1]}")] * 3)
            for g in grids
        ]
        total = levels[0].view_as(levels[0])  # not the parameter itself, which assignment would register once more
        for level in levels[1:]:
            total = total + level
        return total

    def _normal_grid(self) -> Tensor:
        """-grad of the smoothed density potential at the vertices, (1, 3, R, R, R), not normalized."""
        if self._normals is None:
            potential = self._ready(self._raw)
            if self.config.density_bias_on == "density":
                potential = normal_potential(potential, self._bias_grid(), self.config)
            mean, slope = self.smooth, self.smooth_slope
            gradient = [
                along_axes(potential, mean, mean, slope),
                along_axes(potential, mean, slope, mean),
                along_axes(potential, slope, mean, mean),
            ]
            self._normals = -torch.cat(gradient, dim=1)
        return self._normals

    def _lookup(self, grid: Tensor, mu: Tensor) -> Tensor:
        """Trilinear values (m, C) of a (1, C, R, R, R) grid at mu (m, 3)."""
        where = (mu / self.bounding_radius).view(1, 1, 1, -1, 3)
        found = functional.grid_sample(grid, where, mode="bilinear", padding_mode="border", align_corners=True)
        return found.view(grid.shape[1], -1).T  # (m, C)

    @staticmethod
    def _ready(grid: Tensor | None) -> Tensor:
        if grid is None:
            raise RuntimeError("VoxelField was queried before begin_step(progress); call it at the start of each step")
        return grid

    def density(self, mu: Tensor) -> Tensor:
        raw = self._lookup(self._ready(self._raw), mu)[:, 0]
        if self.config.density_bias_on == "raw":
            return activate_density(raw, self.config.density_activation, self.config.density_scale)
        return biased_density(raw, density_bias(mu, self.config, self.progress), self.config)

    def appearance(self, mu: Tensor, with_normals: bool) -> tuple[Tensor, Tensor | None]:
        albedo = self._ready(self._albedo)
        if not with_normals:
            return torch.sigmoid(self._lookup(albedo, mu)), None
        both = self._lookup(torch.cat([albedo, self._normal_grid()], dim=1), mu)
        return torch.sigmoid(both[:, :3]), functional.normalize(both[:, 3:], dim=-1, eps=1e-6)

    def dense_grids(self, with_normals: bool) -> DenseGrids | None:
        """See `Field.dense_grids`: None where a bias is added to densities between the vertices."""
        if self.config.density_bias_on != "raw":
            return None
        albedo = self._ready(self._albedo)
        appearance = torch.cat([albedo, self._normal_grid()], dim=1) if with_normals else albedo
        return DenseGrids(self._ready(self._raw), appearance, self.config.density_activation, self.config.density_scale)

    def query(self, mu: Tensor, with_normals: bool) -> FieldSample:
        rho, normal = self.appearance(mu, with_normals)
        return FieldSample(self.density(mu), rho, normal)

    def smoothness(self) -> Tensor:
        """Total variation of the raw density: sum over axes of the mean squared difference of neighboring vertices."""
        grid = self._ready(self._raw)
        return (
            (grid[..., 1:] - grid[..., :-1]).square().mean()
            + (grid[..., 1:, :] - grid[..., :-1, :]).square().mean()
            + (grid[..., 1:, :, :] - grid[..., :-1, :, :]).square().mean()
        )

    def parameter_groups(self, optimizer: OptimizerConfig) -> list[dict[str, Any]]:
        return [
            {"params": list(self.raw_density), "rate_multiplier": 1.0},
            {"params": list(self.raw_albedo), "rate_multiplier": optimizer.color_rate_multiplier},
        ]
