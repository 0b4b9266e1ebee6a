# SPDX-License-Identifier: GPL-3.0-or-later
"""Fill the pits of a surface: the closing of its solid with a ball, as Euclidean distances make it exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .extract import DensityGrid
from .topology import FloatArray

STEEPEST = 0.99  # level at which a filled node counts as deep inside


def close_pits(grid: DensityGrid, threshold: float, radius: float) -> DensityGrid:
    """The grid with density where the closing of {tau > threshold} with a ball of `radius` (scene units) is solid.

    Pits, cracks and tunnels narrower than two radii are filled; edges and wider openings stay. Score distillation has
    noisy gradients, which leave pits where views disagree. A filled node gets the density whose level (`surface_level`)
    is its depth in cells below the closed surface, so filled parts are smooth. `radius` 0 changes nothing.
    """
    reach = radius / grid.cell
    if reach <= 0:
        return grid
    margin = int(np.ceil(reach)) + 1
    solid = np.pad(grid.tau > threshold, margin)
    # Signed, so that a fraction of a cell counts; distances run from node to node, hence the half.
    swollen = _depth(solid) + reach > 0
    depth = _depth(swollen) - reach
    inner = tuple(slice(margin, -margin) for _ in range(3))
    filled = (depth > 0) & ~solid
    level = np.clip(depth, 0.0, STEEPEST)
    tau = threshold * (1 + level) / (1 - level)
    return replace(grid, tau=np.where(filled[inner], np.maximum(grid.tau, tau[inner]), grid.tau).astype(np.float32))


def project_to_solid(grid: DensityGrid, threshold: float) -> Callable[[FloatArray], FloatArray]:
    """A function that moves points (m, 3) over two cells away from {tau > threshold} to its nearest node; scene units.

    A filled pit has no albedo of its own and takes that of its nearest wall. The identity where nothing is solid.
    """
    solid = grid.tau > threshold
    if not solid.any():
        return lambda mu: mu
    distance, nearest = ndimage.distance_transform_edt(~solid, return_indices=True)

    def moved(mu: FloatArray) -> FloatArray:
        node = np.clip(np.rint((mu - grid.origin) / grid.cell).astype(int), 0, np.array(solid.shape) - 1)
        at = tuple(node.T)
        wall = grid.origin + grid.cell * np.stack([axis[at] for axis in nearest], axis=-1)
        return np.where(distance[at][:, None] > 2.0, wall, mu)

    return moved


def _depth(solid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Signed distance in cells to the boundary half way between solid and empty nodes, positive inside."""
    if solid.all() or not solid.any():
        return np.full(solid.shape, np.inf if solid.all() else -np.inf)
    inside, outside = ndimage.distance_transform_edt(solid), ndimage.distance_transform_edt(~solid)
    return np.where(solid, inside - 0.5, 0.5 - outside)
