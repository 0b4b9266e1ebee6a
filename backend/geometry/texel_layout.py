# SPDX-License-Identifier: GPL-3.0-or-later
"""Which texels of a texture carry its colors, and what those beside the charts show so that no seam is seen.

Bilinear sampling near the border of a chart reads texels beyond it. Such a texel stands for the point of the surface
that lies there when the face across the border is unfolded into the chart's plane. It shows what that face's own chart
shows at that point, so both sides of a seam read the same colors, and a gradient on one side reaches the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .texture import TexelFragments, covered_texels
from .topology import FloatArray, IntArray, Surface, paired_half_edges
from .unwrap import Unwrapping

SMALLEST_SHARE = 1e-3  # of the four texels around a point, below which their own part says nothing about it


@dataclass(frozen=True)
class TexelLayout:
    """own: the m texels whose centers are in a face. border (g,): the others that bilinear sampling of a face reads.

    A border texel has the color sum_k weight[:, k] color[source[:, k]] of own texels: source (g, 4) in 0..m-1, weight
    (g, 4) >= 0 with rows that sum to 1.
    """

    own: TexelFragments
    border: IntArray
    source: IntArray
    weight: FloatArray


def texel_layout(surface: Surface, unwrapping: Unwrapping, size: int) -> TexelLayout:
    """The layout for a surface, as it was unwrapped, and an image of `size` texels a side.

    Where no face lies across the border, or its chart has no texel there, a border texel shows the nearest own one.
    """
    own, near = covered_texels(unwrapping, size, reach=0.0), covered_texels(unwrapping, size)
    row_of = np.full(size * size, -1, dtype=np.int64)
    row_of[own.pixel] = np.arange(len(own.pixel))
    outside = row_of[near.pixel] < 0
    border, face = near.pixel[outside], near.face[outside]
    place, known = _across(surface, unwrapping, border, face, size)
    source, weight = _own_around(place, row_of, size)
    total = weight.sum(axis=1)
    usable = known & (total > SMALLEST_SHARE)
    weight = weight / np.where(usable, total, 1.0)[:, None]
    nearest = _nearest(surface, own, face[~usable], near.barycentric[outside][~usable])
    source[~usable], weight[~usable] = nearest[:, None], [1.0, 0.0, 0.0, 0.0]
    return TexelLayout(own, border, source, weight)


def _across(
    surface: Surface, unwrapping: Unwrapping, pixel: IntArray, face: IntArray, size: int
) -> tuple[FloatArray, np.ndarray]:
    """(places (g, 2) in texels where a chart shows what pixel (g,), outside of face (g,), stands for; is known (g,)).

    The pixel is extended from the face over its nearest edge and folded into the face at the other side.
    """
    center = np.stack([pixel % size, pixel // size], axis=1).astype(np.float64)
    texels = np.asarray(unwrapping.uv, np.float64) * size - 0.5
    barycentric = _barycentric(texels[unwrapping.corners[face]], center)
    corners = surface.vertices[surface.faces[face]]
    edges = np.roll(corners, -1, axis=1) - np.roll(corners, -2, axis=1)  # opposite each corner
    twice_area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    heights = twice_area[:, None] / np.maximum(np.linalg.norm(edges, axis=2), 1e-30)
    beyond = np.argmin(barycentric * heights, axis=1)  # the corner opposite the edge that lies between
    rows = np.arange(len(face))
    start = (beyond + 1) % 3
    other, other_start = _neighbors(surface.faces)
    neighbor, entered = other[start, face], other_start[start, face]
    known = neighbor >= 0
    neighbor = np.maximum(neighbor, 0)
    # The neighbor walks the common edge the other way, so its first corner of it is this face's second.
    order = np.stack([(entered + 1) % 3, entered, (entered + 2) % 3], axis=1)
    first, second, third = np.moveaxis(surface.vertices[surface.faces[neighbor]][rows[:, None], order], 1, 0)
    length = np.maximum(np.linalg.norm(second - first, axis=1), 1e-30)
    along = (second - first) / length[:, None]
    here = np.einsum("gc,gck->gk", barycentric, corners)
    distance = np.maximum(-barycentric[rows, beyond] * heights[rows, beyond], 0.0)
    apex = third - first
    reach = np.einsum("gk,gk->g", apex, along)
    height = np.maximum(np.linalg.norm(apex - reach[:, None] * along, axis=1), 1e-30)
    share = distance / height
    position = np.einsum("gk,gk->g", here - first, along)
    to_second = (position - share * reach) / length
    folded = np.maximum(np.stack([1 - share - to_second, to_second, share], axis=1), 0.0)
    folded /= np.maximum(folded.sum(axis=1, keepdims=True), 1e-30)
    place = np.einsum("gc,gck->gk", folded, texels[unwrapping.corners[neighbor]][rows[:, None], order])
    return place, known & np.isfinite(place).all(axis=1)


def _barycentric(corners: FloatArray, point: FloatArray) -> FloatArray:
    """Coordinates (g, 3) of points (g, 2) in triangles (g, 3, 2) that have an area."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    offset = point - corners[:, 0]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    b = (offset[:, 0] * second[:, 1] - offset[:, 1] * second[:, 0]) / area
    c = (first[:, 0] * offset[:, 1] - first[:, 1] * offset[:, 0]) / area
    return np.stack([1 - b - c, b, c], axis=1)


def _neighbors(faces: IntArray) -> tuple[IntArray, IntArray]:
    """(face, corner) (3, F) each across the edge that begins at corner c of face f, and where it begins there; -1."""
    count = len(faces)
    across = np.full(3 * count, -1, dtype=np.int64)
    first, second = paired_half_edges(faces)
    across[first], across[second] = second, first
    face, corner = np.where(across >= 0, across % count, -1), np.where(across >= 0, across // count, 0)
    return face.reshape(3, count), corner.reshape(3, count)


def _own_around(place: FloatArray, row_of: IntArray, size: int) -> tuple[IntArray, FloatArray]:
    """The four texels around places (g, 2) in texels: rows (g, 4) of own texels, bilinear weights, 0 where not own."""
    place = np.clip(np.nan_to_num(place), 0.0, size - 1.0)
    low = np.minimum(place.astype(np.int64), size - 2)
    x, y = np.moveaxis(place - low, 1, 0)
    first = low[:, 1] * size + low[:, 0]
    rows = row_of[np.stack([first, first + 1, first + size, first + size + 1], axis=1)]
    weight = np.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], axis=1)
    return np.maximum(rows, 0), np.where(rows >= 0, weight, 0.0)


def _nearest(surface: Surface, own: TexelFragments, face: IntArray, barycentric: FloatArray) -> IntArray:
    """Rows of the own texels nearest on the surface to points of faces (g,) with coordinates (g, 3)."""
    if not len(face):
        return np.zeros(0, dtype=np.int64)
    points, wanted = (
        np.einsum("gc,gck->gk", weights, surface.vertices[surface.faces[faces]])
        for faces, weights in ((own.face, own.barycentric), (face, barycentric))
    )
    _, row = cKDTree(points).query(wanted)
    return np.asarray(row, dtype=np.int64)
