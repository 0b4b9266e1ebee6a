# SPDX-License-Identifier: GPL-3.0-or-later
"""Ray marching and compositing: a dense array masked by occupancy, or packed samples from nerfacc's CUDA kernels."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..errors import ConfigError, one_line
from .compositing import packed_weights, rendering_weights
from .occupancy import OccupancyGrid
from .sampling import sample_rays, sphere_interval

MarchingKind = Literal["dense", "nerfacc"]


@dataclass(frozen=True)
class Composite:
    """weights and transmittance (m,) of the samples (eq 5); opacity and depth (rays,), opacity-normalized distances."""

    weights: Tensor
    transmittance: Tensor
    opacity: Tensor
    depth: Tensor


class March(Protocol):
    """Samples of a batch of rays. mu (m, 3): the points at which a density is needed, scene units."""

    mu: Tensor

    def ray_of(self, samples: Tensor) -> Tensor:
        """Index (s,) of the ray that each of the chosen samples (s,) lies on."""
        ...

    def composite(self, tau: Tensor) -> Composite:
        """Eq 5 with the samples' densities tau (m,)."""
        ...


# (origins (rays, 3), unit directions (rays, 3), occupancy, samples, step, jitter (rays,) or None) -> March
Marcher = Callable[[Tensor, Tensor, OccupancyGrid, int, float, "Tensor | None"], March]


class DenseMarch:
    """`samples` positions on each ray that meets the sphere; those outside it or in empty cells have zero density."""

    def __init__(
        self,
        origins: Tensor,
        directions: Tensor,
        occupancy: OccupancyGrid,
        samples: int,
        step: float,
        jitter: Tensor | None,
    ) -> None:
        self._count, self._samples = len(origins), samples
        self._ray_samples = placed = sample_rays(origins, directions, occupancy.bounding_radius, samples, step, jitter)
        mu = (
            origins[placed.ray][:, None] + placed.t_mids[..., None] * directions[placed.ray][:, None]
        )  # (rays, samples, 3)
        kept = (mu.square().sum(-1) < occupancy.bounding_radius**2).view(-1)
        if occupancy.resolution:
            kept = kept & occupancy.contains(mu.view(-1, 3))
        self._index = kept.nonzero(as_tuple=True)[0]  # (m,)
        self.mu = mu.view(-1, 3)[self._index]

    def ray_of(self, samples: Tensor) -> Tensor:
        return self._ray_samples.ray[torch.div(self._index[samples], self._samples, rounding_mode="floor")]

    def composite(self, tau: Tensor) -> Composite:
        t_mids, ray = self._ray_samples.t_mids, self._ray_samples.ray
        dense = torch.zeros(t_mids.numel(), device=tau.device, dtype=tau.dtype).index_put((self._index,), tau)
        weights, transmittance = rendering_weights(dense.view(t_mids.shape), self._ray_samples.deltas)
        zeros = torch.zeros(self._count, device=tau.device)
        opacity = zeros.index_add(0, ray, weights.sum(-1))
        distance = (weights.detach() * t_mids).sum(-1) / weights.detach().sum(-1).clamp(min=1e-6)
        depth = zeros.index_add(0, ray, distance)
        return Composite(weights.view(-1)[self._index], transmittance.view(-1)[self._index], opacity, depth)


def traverse_with_nerfacc(
    origins: Tensor, directions: Tensor, occupancy: OccupancyGrid, near: Tensor, far: Tensor, step: float
) -> tuple[Tensor, Tensor]:
    """Rising ray indices (m,) and distances t (m,) of the samples near + (i + 1/2) step < far that lie in kept cells.

    nerfacc's CUDA kernel walks from cell to cell instead of testing every position.
    """
    from nerfacc.grid import traverse_grids

    if not len(origins):  # its launcher divides by the number of rays
        return torch.zeros(0, dtype=torch.long, device=origins.device), near
    radius = occupancy.bounding_radius
    box = torch.tensor([[-radius] * 3 + [radius] * 3], device=origins.device)
    cells = occupancy.occupied.permute(2, 1, 0)[None].contiguous()  # ours are (z, y, x), nerfacc's (level, x, y, z)
    _, samples, _ = traverse_grids(origins, directions, cells, box, near_planes=near, far_planes=far, step_size=step)
    return samples.ray_indices, samples.vals


class PackedMarch:
    """Only the samples in kept cells, packed ray by ray: the positions of `DenseMarch`, found faster on a GPU."""

    traverse = staticmethod(traverse_with_nerfacc)

    def __init__(
        self,
        origins: Tensor,
        directions: Tensor,
        occupancy: OccupancyGrid,
        samples: int,
        step: float,
        jitter: Tensor | None,
    ) -> None:
        self._count, self._step = len(origins), step
        near, far, meets = sphere_interval(origins, directions, occupancy.bounding_radius)
        hit = meets.nonzero(as_tuple=True)[0]
        start = near[hit] if jitter is None else near[hit] + (jitter[hit] - 0.5) * step
        ray, self._t = self.traverse(origins[hit], directions[hit], occupancy, start, far[hit], step)
        self._ray = hit[ray]
        self.mu = origins[self._ray] + self._t[:, None] * directions[self._ray]

    def ray_of(self, samples: Tensor) -> Tensor:
        return self._ray[samples]

    def composite(self, tau: Tensor) -> Composite:
        weights, transmittance = self._weights(tau)
        zeros = torch.zeros(self._count, device=tau.device)
        opacity = zeros.index_add(0, self._ray, weights)
        depth = zeros.index_add(0, self._ray, weights.detach() * self._t) / opacity.detach().clamp(min=1e-6)
        return Composite(weights, transmittance, opacity, depth)

    def _weights(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        if not (tau.is_cuda and len(tau)):  # nerfacc composites packed samples on CUDA only, and never none
            return packed_weights(tau, self._step, self._ray, self._count)
        from nerfacc import render_weight_from_density

        start = torch.zeros_like(tau)  # only the difference of start and end counts, and this one has no rounding error
        weights, transmittance, _ = render_weight_from_density(
            start, start + self._step, tau, ray_indices=self._ray, n_rays=self._count
        )
        return weights, transmittance


MARCHERS: Mapping[MarchingKind, Marcher] = {"dense": DenseMarch, "nerfacc": PackedMarch}


def missing_for_nerfacc() -> str:
    """What this machine lacks for nerfacc's CUDA kernels; "" when nothing is missing."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if shutil.which("nvcc") is None:
        return "there is no nvcc on PATH to build its kernels"
    return ""


@functools.cache
def nerfacc_fault(device: str) -> str:
    """Why nerfacc cannot march on this device; "" when it can. Its kernels are compiled (minutes, once) and tried."""
    missing = "the run is not on a CUDA device" if torch.device(device).type != "cuda" else missing_for_nerfacc()
    if missing:
        return missing
    try:
        grid = OccupancyGrid(0, 1.0, 0.0).to(device)
        ray = torch.tensor([[0.0, 0.0, -2.0], [0.0, 0.0, 1.0]], device=device)
        march = PackedMarch(ray[:1], ray[1:], grid, 4, 0.5, None)
        found = int(march.composite(torch.ones(len(march.mu), device=device)).weights.numel())
    except Exception as error:  # compilers, drivers and extension loaders raise anything; the dense path still works
        return f"its kernels do not work here ({type(error).__name__}: {one_line(error)})"
    return "" if found == 4 else f"its kernels found {found} samples instead of 4"


def choose_marching(
    wanted: Literal["auto", "dense", "compiled", "nerfacc"], device: torch.device | str
) -> tuple[MarchingKind, str]:
    """The marching for `render.marching`, and a warning when a GPU runs without nerfacc ("" otherwise).

    Raises ConfigError when nerfacc is required and cannot run.
    """
    device = torch.device(device)
    if wanted == "dense" or (wanted == "auto" and device.type != "cuda"):
        return "dense", ""
    fault = nerfacc_fault(str(device))
    if not fault:
        return "nerfacc", ""
    if wanted == "nerfacc":
        raise ConfigError(
            f"render.marching is nerfacc, but {fault}; allowed on this machine are auto and dense; change it, or see "
            "`dreamwright doctor`"
        )
    return "dense", f"rays are marched by the built-in dense path; nerfacc would be faster, but {fault}"
