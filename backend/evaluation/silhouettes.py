# SPDX-License-Identifier: GPL-3.0-or-later
"""Silhouette IoU of a mesh with a reference, best over a global scale and a rotation about Z."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..mesh_rendering.rasterize import orbit_axes, rasterize

RESOLUTION = 64  # pixels a side
DISTANCE, FOCAL = 2.2, 1.8  # scene units, image widths: a prop of radius 0.5 fills four fifths of the image
SEARCH_ELEVATIONS = (5.0, 40.0)  # degrees, of the alignment's views
SEARCH_STEP = 15.0  # degrees between candidate rotations
SCALES = tuple(np.round(np.geomspace(0.75, 1.35, 9), 4))
HELD_OUT_ELEVATIONS = (
    0.0,
    20.0,
    35.0,
    55.0,
)  # degrees; with four azimuths each, 16 views that the alignment does not use


@dataclass(frozen=True)
class Solid:
    """A mesh in scene units: vertices (V, 3), faces (F, 3), centered by `centered`."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]

    def transformed(self, scale: float, rotation_deg: float) -> Solid:
        """Scaled about the origin, then turned about Z by `rotation_deg`, right-handed."""
        c, s = np.cos(np.radians(rotation_deg)), np.sin(np.radians(rotation_deg))
        matrix = scale * np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        return Solid(self.vertices @ matrix.T, self.faces)


@dataclass(frozen=True)
class Alignment:
    """The best transform, and its IoU over the held-out views."""

    scale: float
    rotation_deg: float
    iou: float  # mean over 16 held-out views


def centered(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> Solid:
    """The mesh with its bounding-box center at the origin and its farthest vertex at radius 0.5."""
    points = np.asarray(vertices, np.float64)
    points = points - 0.5 * (points.min(0) + points.max(0))
    return Solid(points * (0.5 / max(1e-9, np.linalg.norm(points, axis=1).max())), np.asarray(faces, np.int64))


def silhouette(solid: Solid, azimuth_deg: float, elevation_deg: float) -> NDArray[np.bool_]:
    """Mask (64, 64) of the solid seen from an orbit."""
    axes = orbit_axes(azimuth_deg, elevation_deg)
    return rasterize(solid.vertices, solid.faces, DISTANCE * axes[:, 2], axes, FOCAL, RESOLUTION).mask


def iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks; 1 when both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def held_out_views() -> list[tuple[float, float]]:
    """16 (azimuth, elevation) in degrees, none of them an alignment view."""
    return [(22.5 * i + 90.0 * k + 7.0, e) for i, e in enumerate(HELD_OUT_ELEVATIONS) for k in range(4)]


def align(solid: Solid, reference: Solid) -> Alignment:
    """Search 24 rotations x 9 scales on 48 views, refine the rotation by 5 degrees, measure on 16 other views.

    A mesh turned by r looks at azimuth a as the unturned one at a - r, so each scale is rendered once.
    """
    azimuths = np.arange(0.0, 360.0, SEARCH_STEP)
    wanted = np.array([[silhouette(reference, a, e) for a in azimuths] for e in SEARCH_ELEVATIONS])
    best = (-1.0, 1.0, 0.0)
    for scale in SCALES:
        scaled = solid.transformed(float(scale), 0.0)
        seen = np.array([[silhouette(scaled, a, e) for a in azimuths] for e in SEARCH_ELEVATIONS])
        for turn in range(len(azimuths)):
            rolled = np.roll(seen, turn, axis=1)
            inter = (rolled & wanted).sum((2, 3))
            union = np.maximum(1, (rolled | wanted).sum((2, 3)))
            score = float((inter / union).mean())
            if score > best[0]:
                best = (score, float(scale), float(azimuths[turn]))
    _, scale, rotation = best
    candidates = [(scale, rotation + d) for d in (-5.0, 0.0, 5.0)]

    def fit(candidate: tuple[float, float]) -> float:
        turned = solid.transformed(*candidate)
        quarter = range(0, len(azimuths), 4)
        return float(
            np.mean(
                [
                    iou(silhouette(turned, azimuths[i], e), wanted[k, i])
                    for k, e in enumerate(SEARCH_ELEVATIONS)
                    for i in quarter
                ]
            )
        )

    scale, rotation = max(candidates, key=fit)
    turned = solid.transformed(scale, rotation)
    return Alignment(scale, rotation % 360.0, held_out_iou(turned, reference))


def held_out_iou(solid: Solid, reference: Solid) -> float:
    """Mean IoU of two aligned solids over the 16 held-out views."""
    return float(np.mean([iou(silhouette(solid, a, e), silhouette(reference, a, e)) for a, e in held_out_views()]))


def open_holes(mask: NDArray[np.bool_], smallest_share: float = 0.01) -> int:
    """Number of background regions that a silhouette encloses, each at least a fraction of its bounding box."""
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return 0
    area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
    labels, count = ndimage.label(~np.pad(mask, 1))
    sizes = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(1, count + 1))
    outside = labels[0, 0] - 1
    return int(sum(size >= smallest_share * area for i, size in enumerate(sizes) if i != outside))


def hole_is_open(solid: Solid) -> bool:
    """Whether a view at 10 degrees of elevation sees through the solid."""
    return any(open_holes(silhouette(solid, a, 10.0)) > 0 for a in np.arange(0.0, 360.0, 15.0))
