# SPDX-License-Identifier: GPL-3.0-or-later
"""Fronts where none belong (the Janus problem), by comparing views with those of the true prop.

A classifier of views answers front, side or back. Its bounds are arbitrary at diagonal views: the true chair, seen
from behind at 135 and 225 degrees, is a front to ours. Images of the true prop say what each side looks like.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ..geometry.build import Mesh
from .classifier_metrics import AZIMUTHS, FRONT_ELEVATION, render_views
from .samples import true_prop

TRUE_AZIMUTHS = 2 * AZIMUTHS  # of the true prop, so that a view is compared with its neighbors at 22.5 degrees as well
BLUR = 2.0  # pixels of 64: lumps and shifted edges count less than where parts are
# A view elsewhere counts as a front when its distance to the front is below this share of that to the true view. Over
# all props and colors, true props of other proportions have 2.4 and more; the lowest of the five views of props with a
# second front built onto their backs has 0.84 and less. Lumps add to both distances, and draw ratios towards 1.
MARGIN = 0.95
ELSEWHERE = slice(2, AZIMUTHS - 1)  # 90 to 270 degrees: not the front's neighbors


def view_distances(mesh: Mesh, rotation_deg: float, prompt: str) -> NDArray[np.float64]:
    """Root mean square distance of each view to each of the true prop's, (8, 16), row k at azimuth 45 k degrees.

    Views are albedo and lit textureless images, blurred. The mesh is turned by `rotation_deg` about Z. Raises
    ValueError for a prompt of another domain.
    """
    seen, true = _features(mesh, rotation_deg, AZIMUTHS), _true_features(prompt)
    return np.sqrt(((seen[:, None] - true[None]) ** 2).mean(axis=2))


def fit_distance(distances: NDArray[np.float64]) -> float:
    """Mean distance of the views to the true prop's views of the same azimuths, or of their neighbors."""
    return float(np.mean([_nearest(distances, view, view) for view in range(AZIMUTHS)]))


def turned(distances: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """The distances of the same mesh turned further about Z, by 45 degrees a step."""
    return np.roll(distances, steps, axis=0)


def front_ratios(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance to the front over that to the true view, of the five views at 90 to 270 degrees: (5,)."""
    views = range(AZIMUTHS)[ELSEWHERE]
    return np.array([_nearest(distances, k, 0) / max(_nearest(distances, k, k), 1e-12) for k in views])


def _nearest(distances: NDArray[np.float64], view: int, azimuth: int) -> float:
    """Distance of a view to the true one at 45 * azimuth degrees, or at a neighbor's: the smallest of three."""
    return float(distances[view, np.arange(2 * azimuth - 1, 2 * azimuth + 2) % TRUE_AZIMUTHS].min())


@cache
def _true_features(prompt: str) -> NDArray[np.float64]:
    return _features(true_prop(prompt), 0.0, TRUE_AZIMUTHS)


def _features(mesh: Mesh, rotation_deg: float, azimuths: int) -> NDArray[np.float64]:
    """(azimuths, k): blurred albedo and one channel of the lit textureless image."""
    albedo, bare = (
        render_views(mesh, rotation_deg, textureless, FRONT_ELEVATION, azimuths=azimuths, lit=textureless)
        for textureless in (False, True)
    )
    images = torch.cat([albedo, bare[:, :1]], dim=1).double().numpy()
    return ndimage.gaussian_filter(images, (0, 0, BLUR, BLUR)).reshape(azimuths, -1)
