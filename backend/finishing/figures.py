# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a finished mesh is from the dense one, and how its texture is used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..evaluation.silhouettes import Solid
from ..evaluation.surface_normals import angle_deg, face_normals
from ..evaluation.surfaces import sample_faces
from ..geometry.topology import FloatArray, Surface, diagonal, face_areas
from ..geometry.unwrap import Unwrapping
from .surface_search import SurfaceSearch

POINTS = 20_000  # drawn on each surface, uniform in area
VERTICES = 50_000  # of a surface that are measured besides; of more, as many at random


@dataclass(frozen=True)
class ShapeError:
    """hausdorff: the largest distance of either surface from the other, meters; mean: of both directions; normal_deg:
    mean angle between the normals at nearest points.
    """

    hausdorff: float
    mean: float
    normal_deg: float

    def of_diagonal(self, surface: Surface) -> float:
        """The Hausdorff distance over the surface's diagonal."""
        return self.hausdorff / max(diagonal(surface), 1e-300)


def shape_error(surface: Surface, dense: Surface, search: SurfaceSearch | None = None, seed: int = 0) -> ShapeError:
    """Distances between two surfaces, from the vertices and random points of each to the other, exactly.

    The maximum over points is a lower bound of the Hausdorff distance, tight where triangles are small. `search`: on
    `dense`, made where it is None.
    """
    search = search or SurfaceSearch(dense)
    own = SurfaceSearch(surface)
    rng = np.random.default_rng(seed)
    there, there_deg = _directed(surface, dense, search, rng)
    back, back_deg = _directed(dense, surface, own, rng)
    return ShapeError(
        hausdorff=float(max(there.max(), back.max())),
        mean=0.5 * float(there[:POINTS].mean() + back[:POINTS].mean()),
        normal_deg=0.5 * (there_deg + back_deg),
    )


def _directed(
    surface: Surface, other: Surface, search: SurfaceSearch, rng: np.random.Generator
) -> tuple[FloatArray, float]:
    """Distances of random points, then of vertices, of a surface from the other; mean angle of the normals, degrees."""
    solid = Solid(np.asarray(surface.vertices, np.float64), np.asarray(surface.faces, np.int64))
    points, face = sample_faces(solid, POINTS, rng)
    corners = surface.vertices[np.unique(surface.faces)]
    if len(corners) > VERTICES:
        corners = corners[rng.choice(len(corners), VERTICES, replace=False)]
    found = search.nearest(np.concatenate([points, corners]))
    theirs = face_normals(Solid(np.asarray(other.vertices, np.float64), np.asarray(other.faces, np.int64)))
    angle = angle_deg(face_normals(solid)[face], theirs[found.face[:POINTS]])
    return found.distance, float(angle.mean())


@dataclass(frozen=True)
class TexelDensity:
    """Texels a meter: median over the area, and the values below and above which 5% of the area lies; used: share of
    the image that charts cover.
    """

    median: float
    low: float
    high: float
    used: float


def texel_density(surface: Surface, unwrapping: Unwrapping, size: int) -> TexelDensity:
    """size * sqrt(area in uv / area) of the faces, weighted by their areas."""
    uv = np.asarray(unwrapping.uv, dtype=np.float64)[unwrapping.corners]
    edge, other = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    flat = 0.5 * np.abs(edge[:, 0] * other[:, 1] - edge[:, 1] * other[:, 0])
    areas = face_areas(surface)
    usable = areas > 0
    density = size * np.sqrt(flat[usable] / areas[usable])
    order = np.argsort(density)
    share = np.cumsum(areas[usable][order]) / areas[usable].sum()
    at = [density[order][min(np.searchsorted(share, level), len(order) - 1)] for level in (0.5, 0.05, 0.95)]
    return TexelDensity(float(at[0]), float(at[1]), float(at[2]), float(flat.sum()))
