# SPDX-License-Identifier: GPL-3.0-or-later
"""The density at which a field's surface lies, found by comparing candidates with the field's own opacity and depth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import RunError
from ..mesh_rendering.rasterize import orbit_axes
from .extract import DensityGrid, empty_message
from .topology import FloatArray

# (azimuth, elevation) in degrees: around, from above and from below; off the axes, so that boxes show their edges.
VIEWS = ((10.0, 20.0), (100.0, 20.0), (190.0, 20.0), (280.0, 20.0), (55.0, 75.0), (235.0, -30.0))
VIEW_RESOLUTION = 48
MEDIAN = math.log(2.0)  # optical depth at which opacity is one half
PLATEAU = 2e-3  # candidates this close to the best score are taken as equal, and their middle is chosen


@dataclass(frozen=True)
class RayBundle:
    """Densities along parallel rays: tau (n, s) at distances `step` apart, with what a render of them says."""

    tau: Tensor
    step: float
    opaque: Tensor  # (n,) bool: opacity above one half
    median_depth: Tensor  # (n,) distance at which opacity passes one half; meaningless where not opaque


def first_crossing(values: Tensor, target: float) -> Tensor:
    """Where along its row a non-decreasing (n, s) first exceeds `target`, as a fractional index: (n,), s if never."""
    index = (values <= target).sum(dim=1)
    after = values.gather(1, index.clamp(max=values.shape[1] - 1)[:, None])[:, 0]
    before = torch.where(index > 0, values.gather(1, (index - 1).clamp(min=0)[:, None])[:, 0], after.new_zeros(()))
    fraction = ((target - before) / (after - before).clamp(min=1e-12)).clamp(0, 1)
    return torch.where(index < values.shape[1], index - 1 + fraction, values.new_full((), values.shape[1]))


def march(grid: DensityGrid, axes: FloatArray, resolution: int = VIEW_RESOLUTION) -> RayBundle:
    """Parallel rays along -back through the whole grid, trilinear tau at every half cell, composited by eq 5."""
    radius = 0.5 * float(np.linalg.norm(grid.extent))
    steps = math.ceil(4.0 * radius / grid.cell)
    step = 2.0 * radius / steps
    across = (np.arange(resolution) + 0.5) / resolution * 2.0 - 1.0
    along = radius - step * (np.arange(steps) + 0.5)
    right, up, back = axes.T
    plane = radius * (across[None, :, None] * right - across[:, None, None] * up)  # row 0 is the top
    mu = plane.reshape(-1, 1, 3) + along[None, :, None] * back  # relative to the grid's center
    normalized = torch.from_numpy((mu / (0.5 * grid.extent)).astype(np.float32))
    volume = torch.from_numpy(grid.tau)[None, None]
    # grid_sample wants (x, y, z) to index the last, middle and first axis; ours are the first, middle and last.
    tau = functional.grid_sample(volume, normalized.flip(-1)[None, None], align_corners=True, padding_mode="zeros")[
        0, 0, 0
    ]
    optical = torch.cumsum(tau * step, dim=1)
    return RayBundle(tau, step, optical[:, -1] > MEDIAN, (first_crossing(optical, MEDIAN) + 1.0) * step)


class RenderAgreement:
    """What the renders of a grid show from some views, to be compared with surfaces in it.

    Raises RunError when the field is nowhere opaque.
    """

    def __init__(self, grid: DensityGrid, views: tuple[tuple[float, float], ...] = VIEWS) -> None:
        highest = float(grid.tau.max())
        self.lowest = MEDIAN / float(np.linalg.norm(grid.extent))  # makes a chord of the grid half opaque
        self._axes = [orbit_axes(azimuth, elevation) for azimuth, elevation in views]
        bundles = [march(grid, axes) for axes in self._axes]
        if highest <= self.lowest or not any(bool(bundle.opaque.any()) for bundle in bundles):
            raise RunError(empty_message(highest, self.lowest))
        # Rays that never come near the lowest density and are not opaque cannot change any score.
        self._used = [bundle.opaque | (bundle.tau.amax(dim=1) > self.lowest) for bundle in bundles]
        self._bundles = [
            RayBundle(bundle.tau[used], bundle.step, bundle.opaque[used], bundle.median_depth[used])
            for bundle, used in zip(bundles, self._used, strict=True)
        ]
        area = sum(int(bundle.opaque.sum()) for bundle in bundles) / sum(bool(b.opaque.any()) for b in bundles)
        self.radius = float(np.linalg.norm(grid.extent)) / VIEW_RESOLUTION * math.sqrt(area / math.pi)
        self.density = [torch.cummax(bundle.tau, dim=1).values for bundle in self._bundles]

    def highest_so_far(self, values: DensityGrid) -> list[Tensor]:
        """Running maximum (n, s) along the rays of each view of other values on the same grid; `density`: of tau."""
        marched = [march(values, axes).tau[used] for axes, used in zip(self._axes, self._used, strict=True)]
        return [torch.cummax(tau, dim=1).values for tau in marched]

    def error(self, highest_so_far: list[Tensor], level: float, depth_weight: float = 2.0) -> float:
        """hypot(1 - silhouette IoU, weight * mean |first crossing - median depth| / radius) over all rays; low is good.

        The first crossing of `level` is what the mesh would show; the opacity-1/2 contour and the median depth are
        what the render shows. A soft field has its contour further out than its median depth. At weight 2 both terms
        are near twice the relative error of a ball's radius, and adding their squares (not them) gives one optimum,
        midway. Depth errors are capped at half the radius, so that one stray ray does not decide.
        """
        both = either = 0
        depth_error = 0.0
        for bundle, highest in zip(self._bundles, highest_so_far, strict=True):
            reach = first_crossing(highest, level)
            hit = reach < highest.shape[1]
            common = hit & bundle.opaque
            both += int(common.sum())
            either += int((hit | bundle.opaque).sum())
            difference = ((reach + 0.5) * bundle.step - bundle.median_depth)[common].abs()
            depth_error += float(difference.clamp(max=0.5 * self.radius).sum())
        if both == 0:
            return 2.0
        return math.hypot(1.0 - both / either, depth_weight * depth_error / both / self.radius)


def choose_threshold(grid: DensityGrid, views: tuple[tuple[float, float], ...] = VIEWS) -> float:
    """The density whose surface agrees best with the rendered opacity and depth: positive, 1 / scene unit.

    Candidates are log-spaced from the lowest density that can make a chord of the grid half opaque up to the highest
    density there is, then refined around the best. Deterministic. Raises RunError when the field is nowhere opaque.
    """
    agreement = RenderAgreement(grid, views)
    low, high = math.log(agreement.lowest), math.log(0.98 * float(grid.tau.max()))
    for count in (17, 9):
        candidates = np.linspace(low, high, count)
        scores = np.array([agreement.error(agreement.density, math.exp(candidate)) for candidate in candidates])
        left = right = int(scores.argmin())
        limit = scores.min() + PLATEAU
        while left > 0 and scores[left - 1] <= limit:
            left -= 1
        while right < count - 1 and scores[right + 1] <= limit:
            right += 1
        best = 0.5 * (candidates[left] + candidates[right])
        spacing = candidates[1] - candidates[0]
        if left != right:  # a plateau: a cliff of density, any of these is right
            break
        low, high = max(low, best - spacing), min(high, best + spacing)
    return math.exp(best)
