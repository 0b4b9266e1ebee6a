# SPDX-License-Identifier: GPL-3.0-or-later
"""What the renderer, the optimizer and the mesher may ask of a field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config.schema import OptimizerConfig
from .dense_grids import DenseGrids


@dataclass(frozen=True)
class FieldSample:
    """tau (m,) density in 1 / scene unit, rho (m, 3) albedo in [0, 1], normal (m, 3) unit and outwards, or None."""

    tau: Tensor
    rho: Tensor
    normal: Tensor | None


class Field(nn.Module):
    """(tau, rho) = F(mu; theta) inside a bounding sphere (eq 6).

    `separate_density` says that density alone is much cheaper than a whole query, so that a renderer should first ask
    for densities and then for the appearance of what is seen.
    """

    bounding_radius: float
    separate_density: bool = False

    def begin_step(self, progress: float) -> None:
        """Anneal to `progress` in [0, 1] and rebuild what all queries of one step share; call before any query."""
        raise NotImplementedError

    def density(self, mu: Tensor) -> Tensor:
        """tau (m,) at mu (m, 3)."""
        raise NotImplementedError

    def appearance(self, mu: Tensor, with_normals: bool) -> tuple[Tensor, Tensor | None]:
        """rho (m, 3) and, if asked for, n = -grad tau / |grad tau| (m, 3) at mu (m, 3)."""
        sample = self.query(mu, with_normals)
        return sample.rho, sample.normal

    def query(self, mu: Tensor, with_normals: bool) -> FieldSample:
        """Density, albedo and normals at mu (m, 3)."""
        raise NotImplementedError

    def dense_grids(self, with_normals: bool) -> DenseGrids | None:
        """All that a renderer needs of a field that is trilinear grids; None for any other field."""
        return None

    def smoothness(self) -> Tensor:
        """The field's own smoothness penalty, a scalar; zero where it makes no sense."""
        return torch.zeros((), device=next(self.parameters()).device)

    def parameter_groups(self, optimizer: OptimizerConfig) -> list[dict[str, Any]]:
        """Optimizer groups, each with its "rate_multiplier" of the learning rate."""
        return [{"params": list(self.parameters()), "rate_multiplier": 1.0}]
