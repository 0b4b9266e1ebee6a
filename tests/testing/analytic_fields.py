# SPDX-License-Identifier: GPL-3.0-or-later
"""Fields with known shapes and colors, so that meshing can be tested against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Sample(NamedTuple):
    tau: Tensor
    rho: Tensor
    normal: Tensor | None


class AnalyticField:
    """tau = peak * sigmoid(-distance(mu) / softness) with a signed distance; rho by a function of position."""

    def __init__(
        self,
        distance: Callable[[Tensor], Tensor],
        rho: Callable[[Tensor], Tensor] | tuple[float, float, float] = (0.8, 0.2, 0.1),
        peak: float = 200.0,
        softness: float = 0.01,
        bounding_radius: float = 1.4,
    ) -> None:
        self.distance, self.rho, self.peak, self.softness = distance, rho, peak, softness
        self.bounding_radius = bounding_radius
        self.furthest_query = 0.0

    def density(self, mu: Tensor) -> Tensor:
        if len(mu):
            self.furthest_query = max(self.furthest_query, float(mu.norm(dim=1).max()))
        return self.peak * torch.sigmoid(-self.distance(mu) / self.softness)

    def query(self, mu: Tensor, with_normals: bool) -> Sample:
        rho = self.rho(mu) if callable(self.rho) else torch.tensor(self.rho).expand(len(mu), 3)
        return Sample(self.density(mu), rho, None)


def sphere(radius: float, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Callable[[Tensor], Tensor]:
    return lambda mu: (mu - torch.tensor(center)).norm(dim=1) - radius


def torus(major: float, minor: float) -> Callable[[Tensor], Tensor]:
    """Around the z axis."""
    return lambda mu: torch.hypot(torch.hypot(mu[:, 0], mu[:, 1]) - major, mu[:, 2]) - minor


def foot_on_torus(mu: Tensor) -> Tensor:
    """The nearest point of the surface of `torus(0.3, 0.12)`."""
    ring = torch.cat([mu[:, :2], torch.zeros_like(mu[:, 2:])], dim=1)
    ring = 0.3 * ring / ring.norm(dim=1, keepdim=True)
    return ring + 0.12 * torch.nn.functional.normalize(mu - ring, dim=1)


def box(
    half: tuple[float, float, float], center: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Callable[[Tensor], Tensor]:
    def distance(mu: Tensor) -> Tensor:
        q = (mu - torch.tensor(center)).abs() - torch.tensor(half)
        return q.clamp(min=0).norm(dim=1) + q.amax(dim=1).clamp(max=0)

    return distance


def union(*parts: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda mu: torch.stack([part(mu) for part in parts]).amin(dim=0)
