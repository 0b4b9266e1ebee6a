# SPDX-License-Identifier: GPL-3.0-or-later
"""The surface of a soft field: a contour of low density, moved inwards to where the renders show the surface.

Within an opaque part all densities above some value render alike, so score distillation leaves noise there, and the
contour of a density of that size is full of pits and tunnels that no view shows. Further out all views agree.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from .extract import DensityGrid, fill_cavities, surface_level
from .threshold import RenderAgreement
from .topology import FloatArray

OUTER_SHARE = 1.0 / 3.0  # density of the outer contour, of the threshold that agrees best with the renders
LARGEST = 8  # cells of the largest inset that is tried
STEPS = 4  # insets that are tried in each cell
SMALLEST = 1.0  # cells: below, the field has an edge and no soft boundary, and its own contour is more exact
SMOOTHING = 0.7  # cells of the Gaussian on the depth, which errs by fractions of a cell from node to node
DEPTH_WEIGHT = 1.0  # of `RenderAgreement.error`: at 2 legs and handles get thinner than their silhouettes
WORSE = 0.04  # of `RenderAgreement.error`: the outer contour may agree that much less; beyond it is fog
THINNEST = 0.5  # share of a thin part's half thickness that the inset takes at most, so that the part stays whole
BESIDE = 3**0.5  # cells, the diagonal of one: within it the level tells the distance to the surface
STEEPEST = 0.99  # level at which a node counts as deep inside


def signed_depth(level: FloatArray) -> FloatArray:
    """Depth of each node in cells below the surface level = 0, positive inside: Euclidean, between nodes too.

    level (nx, ny, nz), positive inside. The nearest node across the surface lies |level| / |grad level| beyond it.
    """
    slope = np.sqrt(sum(part**2 for part in np.gradient(level)))
    offset = np.abs(level) / np.maximum(slope, 1e-9)  # distance of a node beside the surface, not of others
    depth = np.empty(level.shape)
    for inside in (True, False):
        side = (level > 0) == inside
        distance, nearest = ndimage.distance_transform_edt(side, return_indices=True)
        away = distance - np.minimum(offset, BESIDE)[tuple(nearest)]
        away = np.where(distance < BESIDE, np.minimum(away, offset), away)
        depth[side] = away[side] * (1.0 if inside else -1.0)
    return depth


def inset_grid(grid: DensityGrid, threshold: float) -> tuple[DensityGrid, float] | None:
    """A grid whose contour at `threshold` is the inset surface, and the inset in scene units; None for a sharp field.

    threshold: as `choose_threshold` gives it. The inset is the one whose silhouettes and depths agree best with the
    renders of `grid`. None too where the outer contour shows fog that is not part of the prop.
    """
    level = fill_cavities(surface_level(grid.tau, OUTER_SHARE * threshold))
    if not (level > 0).any():
        return None
    depth = ndimage.gaussian_filter(signed_depth(level), SMOOTHING, mode="nearest")
    half_thickness = ndimage.maximum_filter(depth, size=2 * LARGEST + 1)
    # Solid at every inset that spares it: the thin parts' cores at all of them.
    core = depth > THINNEST * half_thickness
    reach = replace(grid, tau=np.where(core, LARGEST + 1.0, depth).astype(np.float32))
    agreement = RenderAgreement(grid)
    highest = agreement.highest_so_far(reach)
    insets = np.arange(1, STEPS * LARGEST + 1) / STEPS
    errors = np.array([agreement.error(highest, inset, DEPTH_WEIGHT) for inset in insets])
    inset = float(insets[errors.argmin()])
    contour_error = agreement.error(agreement.density, threshold, DEPTH_WEIGHT)
    if inset < SMALLEST or errors.min() > contour_error + WORSE:
        return None
    local = np.minimum(inset, THINNEST * np.maximum(half_thickness, 0.0))
    final = np.clip(depth - local, -STEEPEST, STEEPEST)
    tau = threshold * (1 + final) / (1 - final)
    tau[[0, -1]] = tau[:, [0, -1]] = tau[:, :, [0, -1]] = 0.0  # closed
    return replace(grid, tau=tau.astype(np.float32)), inset * grid.cell
