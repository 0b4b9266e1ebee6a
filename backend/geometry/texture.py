# SPDX-License-Identifier: GPL-3.0-or-later
"""The albedo of a mesh as a picture: the field is asked at the surface point of every texel."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ..mesh_rendering.rasterize import Fragments
from .color import AlbedoField, display_to_linear, sample_albedo
from .topology import FloatArray, IntArray, Surface, vertex_normals
from .unwrap import Unwrapping

FRAGMENTS = 1 << 21  # candidates handled at a time
BATCH = 1 << 15  # texels between two looks at the clock and at whether to stop
REACH = 1.5  # texels beyond a triangle's edge that are its own: what bilinear filtering reads there


@dataclass(frozen=True)
class Texture:
    """picture (s, s, 3) uint8 albedo in display sRGB, row 0 at the top, and where the mesh's corners lie in it."""

    picture: NDArray[np.uint8]
    unwrapping: Unwrapping

    def linear_at(self, uv: FloatArray) -> FloatArray:
        """Linear RGB (..., 3) at places (..., 2), between texel centers bilinear in linear RGB, as renderers do."""
        size = len(self.picture)
        place = np.clip(np.asarray(uv, dtype=np.float64) * size - 0.5, 0.0, size - 1.0)
        low = np.minimum(place.astype(np.int64), size - 2)
        column, row = low[..., 0], low[..., 1]
        x, y = np.moveaxis(place - low, -1, 0)[..., None]
        decoded = display_to_linear(np.arange(256) / 255.0)
        texel = [[decoded[self.picture[row + down, column + right]] for right in (0, 1)] for down in (0, 1)]
        return (1 - y) * ((1 - x) * texel[0][0] + x * texel[0][1]) + y * ((1 - x) * texel[1][0] + x * texel[1][1])

    def seen(self, fragments: Fragments) -> FloatArray:
        """Linear RGB (r, r, 3) at the pixels of a rasterized view of the mesh; meaningless where no face is seen."""
        return self.linear_at(fragments.interpolate(self.unwrapping.corners, self.unwrapping.uv))

    def png(self) -> bytes:
        """The picture as an 8-bit PNG without color profile: glTF reads a base color texture as sRGB whatever it says."""
        stream = io.BytesIO()
        Image.fromarray(self.picture).save(stream, format="PNG")
        return stream.getvalue()


@dataclass(frozen=True)
class TexelFragments:
    """TexelFragments that some face has: pixel (m,) = row * size + column, face (m,), barycentric (m, 3) inside that face."""

    pixel: IntArray
    face: IntArray
    barycentric: FloatArray


def covered_texels(unwrapping: Unwrapping, size: int, reach: float = REACH) -> TexelFragments:
    """Every texel whose center is in a face, or within `reach` texels of one and then at that face's edge.

    Where several faces claim a texel, the one it lies deepest in, or least outside of, has it.
    """
    points = (
        np.asarray(unwrapping.uv, dtype=np.float64) * size - 0.5
    )  # columns and rows; whole numbers are texel centers
    corners = points[unwrapping.corners]
    edge1, edge2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    lengths = np.linalg.norm(
        np.roll(corners, -1, axis=1) - np.roll(corners, -2, axis=1), axis=2
    )  # of the edge opposite each corner
    heights = np.abs(area)[:, None] / np.maximum(
        lengths, 1e-12
    )  # barycentric times height: distance to an edge in texels
    low = np.ceil(np.maximum(corners.min(axis=1) - reach, 0)).astype(np.int64)
    high = np.floor(np.minimum(corners.max(axis=1) + reach, size - 1)).astype(np.int64)
    seen = np.flatnonzero((np.abs(area) > 1e-9) & (low <= high).all(axis=1))
    low, extent = low[seen], (high - low)[seen] + 1
    counts = extent[:, 0] * extent[:, 1]
    ends = np.cumsum(counts)

    depth = np.full(
        size * size, -np.inf
    )  # distance to the nearest edge of the face that has the texel, negative outside
    face = np.full(size * size, -1, dtype=np.int64)
    weights = np.zeros((size * size, 3))
    start = 0
    while start < len(seen):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + FRAGMENTS, side="right")))
        batch = np.arange(start, stop)
        which = np.repeat(batch, counts[batch])
        index = np.arange(len(which)) - np.repeat(ends[batch] - counts[batch] - done, counts[batch])
        columns, rows = low[which, 0] + index % extent[which, 0], low[which, 1] + index // extent[which, 0]
        owner = seen[which]
        dx, dy = columns - corners[owner, 0, 0], rows - corners[owner, 0, 1]
        b1 = (dx * edge2[owner, 1] - dy * edge2[owner, 0]) / area[owner]
        b2 = (dy * edge1[owner, 0] - dx * edge1[owner, 1]) / area[owner]
        barycentric = np.stack([1 - b1 - b2, b1, b2], axis=1)
        inside = (barycentric * heights[owner]).min(axis=1)
        pixel = rows * size + columns
        # Shallow claims are written first, so that the deepest of a texel is the one that stays.
        order = np.flatnonzero((inside >= -reach) & (inside > depth[pixel]))
        order = order[np.argsort(inside[order], kind="stable")]
        depth[pixel[order]], face[pixel[order]] = inside[order], owner[order]
        weights[pixel[order]] = barycentric[order]
        start = stop
    pixel = np.flatnonzero(face >= 0)
    weights = np.maximum(weights[pixel], 0.0)
    return TexelFragments(pixel, face[pixel], weights / weights.sum(axis=1, keepdims=True))


def bake(
    field: AlbedoField,
    surface: Surface,
    unwrapping: Unwrapping,
    size: int,
    cell: float,
    onto: Callable[[FloatArray], FloatArray] = lambda mu: mu,
    progress: Callable[[float], None] = lambda share: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Texture | None:
    """The field's albedo at every texel of a picture of `size` a side; None when told to stop.

    `surface` is the mesh in scene units, `cell` the spacing of its grid. Colors are sampled as for vertices
    (`sample_albedo`), at the texel's point of the triangle, moved by `onto` first. TexelFragments of no face take the color of the
    nearest that has one, so that neither filtering nor small mip levels show what is between the charts.
    """
    texels = covered_texels(unwrapping, size)
    normals = vertex_normals(surface)
    picture = np.zeros((size * size, 3), dtype=np.uint8)
    for start in range(0, len(texels.pixel), BATCH):
        if should_stop():
            return None
        rows = slice(start, start + BATCH)
        faces, weights = surface.faces[texels.face[rows]], texels.barycentric[rows]
        point = np.einsum("mc,mck->mk", weights, surface.vertices[faces])
        normal = np.einsum("mc,mck->mk", weights, normals[faces])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        picture[texels.pixel[rows]] = np.rint(255.0 * sample_albedo(field, onto(point), normal, cell)).astype(np.uint8)
        progress(min(1.0, (start + BATCH) / len(texels.pixel)))
    return Texture(fill_gaps(picture.reshape(size, size, 3), texels.pixel), unwrapping)


def fill_gaps(picture: NDArray[np.uint8], known: IntArray) -> NDArray[np.uint8]:
    """The picture (s, s, 3) with every texel that is not in `known` (m,) colored as the nearest that is."""
    empty = np.ones(picture.shape[:2], dtype=bool)
    empty.reshape(-1)[known] = False
    if empty.all():
        return picture
    row, column = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    return picture[row, column]
