# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a triangle budget: decimate, and where too many handles or parts forbid it, mesh a coarser grid."""

from __future__ import annotations

import mcubes
import numpy as np
from scipy import ndimage

from ..errors import RunError
from .clean import clean_surface
from .decimate import decimate, is_sound
from .extract import NUDGE, DensityGrid, fill_cavities, surface_level
from .topology import Surface, euler_number, face_components

ACCEPTED = 3.0  # multiples of the budget within which a surface with all its handles is preferred to a coarser one
COARSENINGS = (2, 3, 4, 6, 8, 12, 16)  # cells of the grid that become one
FEWEST_CELLS = 4  # a side of the coarsest grid


def fit_to_budget(surface: Surface, grid: DensityGrid, threshold: float, triangles: int) -> tuple[Surface, str | None]:
    """A sound surface of at most `triangles` faces if there is one, and a warning where that cost shape or failed.

    surface: cleaned, from `grid` at `threshold`. Quadric decimation keeps handles and parts, which noisy fields have in
    hundreds and which a small budget cannot hold; then the surface is extracted anew from a smoothed, coarser grid.
    """
    fine = decimate(surface, triangles)
    if len(fine.faces) <= triangles:
        return fine, None
    reason = f"a surface of {_describe(surface)}"
    best = fine
    if len(fine.faces) > ACCEPTED * triangles:
        for factor in COARSENINGS:
            if min(grid.tau.shape) < FEWEST_CELLS * factor:
                break
            try:
                coarse, _ = clean_surface(coarser_surface(grid, threshold, factor))
            except RunError:
                break
            coarse = decimate(coarse, triangles)
            if not is_sound(coarse):
                continue
            if len(coarse.faces) < len(best.faces):
                best = coarse
            if len(coarse.faces) <= triangles:
                return coarse, (
                    f"{reason} does not fit into mesh.triangles={triangles}: it was meshed {factor} times as coarsely, "
                    f"as {len(coarse.faces)} triangles; give a larger budget for its details, or train longer"
                )
    return best, (
        f"{len(best.faces)} triangles instead of mesh.triangles={triangles} "
        f"({len(best.faces) / triangles:.1f} times as many): fewer do not hold {reason}; "
        "train longer, or raise mesh.smoothing or mesh.closing"
    )


def coarser_surface(grid: DensityGrid, threshold: float, factor: int) -> Surface:
    """The surface of a grid smoothed by a Gaussian of `factor` / 2 cells and thinned by `factor`, of the same volume.

    Of the smoothed `surface_level` the contour is taken that encloses as many nodes as the fine one, so that smoothing
    neither shrinks nor swells the solid. Raises RunError where nothing is left.
    """
    level = fill_cavities(surface_level(grid.tau, threshold))
    smooth = ndimage.gaussian_filter(level, 0.5 * factor, mode="constant", cval=-1.0)
    contour = float(np.quantile(smooth, 1.0 - (level > 0).mean()))
    thinned = np.pad((smooth - contour)[::factor, ::factor, ::factor], 1, constant_values=-1.0)
    thinned = np.where(np.abs(thinned) < NUDGE, np.where(thinned < 0, -NUDGE, NUDGE), thinned)
    thinned[[0, -1]] = thinned[:, [0, -1]] = thinned[:, :, [0, -1]] = -1.0  # closed
    if not (thinned > 0).any():
        raise RunError("nothing is left of the surface on a coarser grid; give a larger mesh.triangles")
    vertices, faces = mcubes.marching_cubes(thinned, 0.0)
    cell = grid.cell * factor
    return Surface(grid.origin + cell * (np.asarray(vertices) - 1.0), np.asarray(faces).astype(np.int64))


def _describe(surface: Surface) -> str:
    parts = int(face_components(surface.faces).max()) + 1
    handles = parts - euler_number(surface.faces) // 2
    return f"{parts} part{'s' * (parts > 1)} and {handles} handle{'s' * (handles != 1)}"
