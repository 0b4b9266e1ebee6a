# SPDX-License-Identifier: GPL-3.0-or-later
"""From a density field to a closed triangle surface: a density grid, its iso-surface by marching cubes (pymcubes)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import mcubes
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ..errors import NonFiniteError, RunError
from .topology import FloatArray, Surface

NUDGE = 1e-3  # keeps levels off zero, so that no two crossings coincide at a node and no triangle collapses
CHUNK = 1 << 18  # positions a query
BISECTIONS = 5  # of a crossing's grid edge: to 1/32 of a cell, then interpolated
EDGE_MARGIN = 0.01  # of a cell: refined crossings stay that far from nodes, so that no triangle collapses


class DensityField(Protocol):
    """What meshing needs of a field; `backend.fields.Field` is one. Its per-step state must be built (begin_step)."""

    bounding_radius: float

    def density(self, mu: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class DensityGrid:
    """tau (nx, ny, nz) float32 at nodes origin + cell * (i, j, k), scene units; the outermost layer is zero."""

    tau: NDArray[np.float32]
    origin: FloatArray
    cell: float

    @property
    def extent(self) -> FloatArray:
        """Length of each side in scene units: (3,)."""
        return self.cell * (np.array(self.tau.shape) - 1)

    @property
    def center(self) -> FloatArray:
        """Middle of the grid in scene units: (3,)."""
        return self.origin + 0.5 * self.extent


def field_device(field: DensityField) -> torch.device:
    """Device of the field's first parameter, else the CPU."""
    parameters = getattr(field, "parameters", None)
    first = next(iter(parameters()), None) if callable(parameters) else None
    return first.device if isinstance(first, Tensor) else torch.device("cpu")


@torch.no_grad()
def query_density(field: DensityField, mu: FloatArray, chunk: int = CHUNK) -> NDArray[np.float32]:
    """tau(mu) in chunks, zero outside the bounding sphere: (m, 3) float64 -> (m,) float32, 1 / scene unit.

    Raises NonFiniteError when the field answers with NaN or infinity.
    """
    device = field_device(field)
    tau = np.zeros(len(mu), dtype=np.float32)
    inside = np.flatnonzero(np.einsum("ij,ij->i", mu, mu) < field.bounding_radius**2)
    for start in range(0, len(inside), chunk):
        rows = inside[start : start + chunk]
        positions = torch.from_numpy(mu[rows].astype(np.float32)).to(device)
        tau[rows] = field.density(positions).reshape(-1).float().cpu().numpy()
    if not np.isfinite(tau).all():
        raise NonFiniteError(
            f"the field's density is not finite at {int((~np.isfinite(tau)).sum())} of {len(tau)} grid nodes; "
            "only finite densities can be meshed; restart from an earlier checkpoint or another --seed"
        )
    return tau


def sample_density_grid(
    field: DensityField, resolution: int, low: FloatArray | None = None, high: FloatArray | None = None
) -> DensityGrid:
    """tau on a regular grid over the box [low, high], by default the bounding cube, padded with a layer of zeros.

    `resolution` is the number of cubic cells along the longest side. The padding and the zeros outside the bounding
    sphere close every surface.
    """
    radius = float(field.bounding_radius)
    low = np.full(3, -radius) if low is None else np.asarray(low, dtype=np.float64)
    high = np.full(3, radius) if high is None else np.asarray(high, dtype=np.float64)
    cell = float((high - low).max()) / resolution
    counts = np.ceil((high - low) / cell - 1e-9).astype(int) + 1
    origin = 0.5 * (low + high) - 0.5 * cell * (counts - 1)
    tau = np.zeros(tuple(counts + 2), dtype=np.float32)
    axes = [origin[axis] + cell * np.arange(counts[axis]) for axis in range(3)]
    slab = max(1, CHUNK // int(counts[1] * counts[2]))  # whole x layers, so that memory stays bounded
    for start in range(0, counts[0], slab):
        layer = np.stack(np.meshgrid(axes[0][start : start + slab], axes[1], axes[2], indexing="ij"), axis=-1)
        values = query_density(field, layer.reshape(-1, 3)).reshape(layer.shape[:3])
        tau[start + 1 : start + 1 + layer.shape[0], 1:-1, 1:-1] = np.maximum(values, 0.0)
    return DensityGrid(tau, origin - cell, cell)


def occupied_box(
    grid: DensityGrid, threshold: float, margin: float, keep_share: float = 2e-3
) -> tuple[FloatArray, FloatArray]:
    """Bounding box of the nodes above `threshold`, without specks of less than `keep_share` of the largest part.

    Returns low (3,) and high (3,) in scene units, widened by `margin` cells and clipped to the grid. A prop fills a
    small part of the bounding sphere; meshing this box instead spends the cells on the prop.
    Raises RunError when no node is above the threshold.
    """
    parts, count = ndimage.label(grid.tau > threshold, structure=np.ones((3, 3, 3), dtype=bool))
    if count == 0:
        raise RunError(empty_message(float(grid.tau.max()), threshold))
    sizes = np.bincount(parts.reshape(-1), minlength=count + 1)
    sizes[0] = 0
    nodes = np.argwhere((sizes >= keep_share * sizes.max())[parts] & (parts > 0))
    low = np.maximum(nodes.min(axis=0) - margin, 0)
    high = np.minimum(nodes.max(axis=0) + margin, np.array(grid.tau.shape) - 1)
    return grid.origin + grid.cell * low, grid.origin + grid.cell * high


def surface_level(tau: NDArray[np.floating], threshold: float) -> FloatArray:
    """(tau - threshold) / (tau + threshold) = tanh(log(tau / threshold) / 2), in [-1, 1], zero on the surface.

    Densities behave like exponentials, so linear interpolation of tau itself pulls crossings to the outer node
    (staircase). This level is linear in log tau near the surface and saturates away from it, which puts the crossing
    of a slow slope where log tau crosses, and that of a cliff half way.
    """
    tau = np.asarray(tau, dtype=np.float64)
    return (tau - threshold) / (tau + threshold)


def fill_cavities(level: FloatArray) -> FloatArray:
    """Set enclosed empty regions to +1: fields are often hollow where no camera sees, and hidden walls waste triangles.

    `level` (nx, ny, nz) must be negative on its border, which is outside.
    """
    parts, _ = ndimage.label(level < 0)
    return np.where((parts > 0) & (parts != parts[0, 0, 0]), 1.0, level)


def extract_surface(grid: DensityGrid, threshold: float) -> Surface:
    """Surface tau = threshold by marching cubes on `surface_level`: closed, outward, in scene units.

    Raises RunError when the density never reaches the threshold.
    """
    level = fill_cavities(surface_level(grid.tau, threshold))
    level = np.where(np.abs(level) < NUDGE, np.where(level < 0, -NUDGE, NUDGE), level)
    if not (level > 0).any():
        raise RunError(empty_message(float(grid.tau.max()), threshold))
    vertices, faces = mcubes.marching_cubes(level, 0.0)
    return Surface(grid.origin + grid.cell * np.asarray(vertices), np.asarray(faces).astype(np.int64))


def refine_surface(field: DensityField, grid: DensityGrid, surface: Surface, threshold: float) -> Surface:
    """Move each vertex of `extract_surface` along its grid edge to where the field itself crosses the threshold.

    Where density climbs within less than a cell, two nodes say that there is a crossing but not where, and flat walls
    turn into stairs of half a cell; a few bisections of the edges in the field, not the grid, remove them.
    """
    position = (surface.vertices - grid.origin) / grid.cell
    node = np.floor(position).astype(np.int64)
    axis = np.abs(position - np.rint(position)).argmax(axis=1)
    rows = np.arange(len(position))
    near = np.rint(position).astype(np.int64)
    near[rows, axis] = node[rows, axis]
    far = near.copy()
    far[rows, axis] += 1
    near_inside = grid.tau[tuple(near.T)] > grid.tau[tuple(far.T)]
    inner = np.where(near_inside[:, None], near, far)
    along = np.where(near_inside, 1.0, -1.0)  # direction from the inner node to the outer one
    start = grid.origin + grid.cell * inner
    step = np.zeros_like(start)
    step[rows, axis] = along * grid.cell
    low, high = np.zeros(len(rows)), np.ones(len(rows))  # inside at low, outside at high
    low_level = surface_level(grid.tau[tuple(inner.T)], threshold)
    high_level = surface_level(grid.tau[tuple(np.where(near_inside[:, None], far, near).T)], threshold)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        level = surface_level(query_density(field, start + middle[:, None] * step), threshold)
        inside = level > 0
        low, low_level = np.where(inside, middle, low), np.where(inside, level, low_level)
        high, high_level = np.where(inside, high, middle), np.where(inside, high_level, level)
    gap = low_level - high_level
    share = np.clip(low_level / np.where(gap > 1e-12, gap, 1.0), 0.0, 1.0)
    crossing = np.clip(low + share * (high - low), EDGE_MARGIN, 1.0 - EDGE_MARGIN)
    return Surface(start + crossing[:, None] * step, surface.faces)


def empty_message(highest: float, threshold: float) -> str:
    """The one line that says why there is no surface."""
    return (
        f"the field is empty: its highest density is {highest:.3g} and the surface needs more than {threshold:.3g}; "
        "train longer, take another --seed, or set mesh.threshold lower"
    )
