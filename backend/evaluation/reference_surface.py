# SPDX-License-Identifier: GPL-3.0-or-later
"""The surface of a procedural prop as meshes of fields have it: the union of its solids, extracted and decimated.

A prop's triangles are a heap of overlapping solids. What an extraction could reach at best is the outside of their
union, by the same marching cubes and in as many triangles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from trimesh.triangles import closest_point

from ..geometry.clean import clean_surface
from ..geometry.extract import DensityGrid, extract_surface
from ..geometry.topology import FloatArray, Surface, half_edges
from ..geometry.triangle_budget import fit_to_budget
from ..starter import props
from .silhouettes import Solid
from .surface_normals import (
    TARGETS,
    OrientedPoints,
    mean_dihedral_deg,
    normal_error_deg,
    oriented_points,
)

CELL = 1 / 112  # scene units: finer than standard's grid
BAND = 2.0  # cells around a surface in which distances are exact
MARGIN = 4  # empty cells around a prop
# Keeps nodes off the coordinates of props, of which many are round: no column of nodes runs along a wall or an edge.
SHIFT = np.array([0.37123, 0.41357, 0.29871])  # cells


@dataclass(frozen=True)
class ReferenceQuality:
    """What the true prop has in the given number of triangles, degrees; see `surface_normals`."""

    dihedral_deg: float
    normal_error_deg: float


@dataclass(frozen=True)
class SignedDistance:
    """values (nx, ny, nz) at origin + CELL * (i, j, k), positive inside, in cells, clipped to +-BAND."""

    values: NDArray[np.float64]
    origin: NDArray[np.float64]

    def at(self, points: FloatArray) -> NDArray[np.float64]:
        """Trilinear interpolation at points (n, 3): (n,) in cells."""
        return ndimage.map_coordinates(self.values, ((points - self.origin) / CELL).T, order=1, mode="nearest")


def triangulated(parts: list[props.Part]) -> list[Surface]:
    """Each part of a prop as triangles."""
    meshes = [props.triangles([part]) for part in parts]
    return [Surface(mesh.vertices.astype(np.float64), mesh.faces.astype(np.int64)) for mesh in meshes]


def is_closed(solid: Surface) -> bool:
    """Whether every edge runs as often in one direction as in the other, so that there is an inside."""
    directed, edge = half_edges(solid.faces)
    return not np.bincount(edge, np.where(directed[:, 0] < directed[:, 1], 1, -1)).any()


def union_distance(solids: list[Surface]) -> SignedDistance:
    """Signed distance of the union of closed solids in scene units: the largest of theirs, positive inside."""
    points = np.concatenate([solid.vertices for solid in solids])
    low, high = points.min(axis=0), points.max(axis=0)
    origin = low - CELL * (MARGIN + SHIFT)
    shape = np.ceil((high - origin) / CELL).astype(int) + MARGIN
    values = np.full(shape, -BAND)
    for solid in solids:
        np.maximum(values, _solid_distance(solid, origin, shape), out=values)
    return SignedDistance(values, origin)


def _solid_distance(solid: Surface, origin: FloatArray, shape: NDArray[np.int_]) -> NDArray[np.float64]:
    """Signed distance in cells of one solid at all nodes, clipped to +-BAND."""
    corners = (solid.vertices[solid.faces] - origin) / CELL  # (F, 3, 3), node coordinates
    distance = np.full(shape, BAND)
    winding = np.zeros(shape, np.int32)
    lows = np.maximum(np.ceil(corners.min(axis=1) - BAND).astype(int), 0)
    highs = np.minimum(np.floor(corners.max(axis=1) + BAND).astype(int) + 1, shape)
    for triangle, low, high in zip(corners, lows, highs, strict=True):
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        nodes = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), -1)
        flat = nodes.reshape(-1, 3).astype(np.float64)
        nearest = closest_point(np.broadcast_to(triangle, (len(flat), 3, 3)), flat)
        apart = np.linalg.norm(flat - nearest, axis=1).reshape(nodes.shape[:3])
        np.minimum(distance[box], apart, out=distance[box])
        _count_below(winding, triangle)
    return np.where(winding > 0, distance, -distance)


def _count_below(winding: NDArray[np.int32], triangle: FloatArray) -> None:
    """Add one to all nodes below a triangle that faces up, and subtract one below one that faces down."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = triangle
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if area == 0.0:
        return
    xs = np.arange(int(np.ceil(min(ax, bx, cx))), int(np.floor(max(ax, bx, cx))) + 1)[:, None]
    ys = np.arange(int(np.ceil(min(ay, by, cy))), int(np.floor(max(ay, by, cy))) + 1)[None, :]
    b = ((xs - ax) * (cy - ay) - (ys - ay) * (cx - ax)) / area
    c = ((bx - ax) * (ys - ay) - (by - ay) * (xs - ax)) / area
    for i, j in np.argwhere((b >= 0) & (c >= 0) & (b + c <= 1)):
        height = az + b[i, j] * (bz - az) + c[i, j] * (cz - az)
        winding[xs[i, 0], ys[0, j], : int(np.floor(height)) + 1] += 1 if area > 0 else -1


class ReferenceSurface:
    """The outside of a prop: points with normals on it, and its mesh in any number of triangles."""

    def __init__(self, parts: list[props.Part]) -> None:
        solids = triangulated(parts)
        self._distance = union_distance([solid for solid in solids if is_closed(solid)])
        self._grid = DensityGrid(
            # `extract_surface` takes tanh(log(tau) / 2) as level: nearly linear in the distance of the nodes around it
            np.exp(0.25 * self._distance.values).astype(np.float32),
            self._distance.origin,
            CELL,
        )
        self._fine, _ = clean_surface(extract_surface(self._grid, 1.0))
        self.outside = self._outside_points(solids)
        self._quality = lru_cache(maxsize=None)(self._measure)

    def mesh(self, triangles: int) -> Solid:
        """The union's surface in at most `triangles` triangles, as `geometry.build` would make it."""
        surface, _ = fit_to_budget(self._fine, self._grid, 1.0, triangles)
        return Solid(np.asarray(surface.vertices, np.float64), np.asarray(surface.faces, np.int64))

    def quality(self, triangles: int) -> ReferenceQuality:
        """Dihedral angle and normal error of `mesh(triangles)`, kept for the next call."""
        return self._quality(triangles)

    def _measure(self, triangles: int) -> ReferenceQuality:
        mesh = self.mesh(triangles)
        return ReferenceQuality(mean_dihedral_deg(mesh), normal_error_deg(mesh, self.outside))

    def _outside_points(self, solids: list[Surface]) -> OrientedPoints:
        """Points of the solids' own faces, without those that lie within another solid."""
        base = np.cumsum([0] + [len(solid.vertices) for solid in solids[:-1]])
        heap = Solid(
            np.concatenate([solid.vertices for solid in solids]),
            np.concatenate([solid.faces + start for solid, start in zip(solids, base, strict=True)]),
        )
        found = oriented_points(heap, 2 * TARGETS, np.random.default_rng(1))
        outside = self._distance.at(found.points) < 0.5
        return OrientedPoints(found.points[outside][:TARGETS], found.normals[outside][:TARGETS])


@cache
def reference_surface(prop: str) -> ReferenceSurface:
    """The outside of the named prop in its mean proportions, kept for the next call. KeyError for unknown names."""
    return ReferenceSurface(props.build(prop))
