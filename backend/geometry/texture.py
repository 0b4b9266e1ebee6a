# SPDX-License-Identifier: GPL-3.0-or-later
"""The albedo of a mesh as a texture: the field is sampled at the surface point of every texel."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ..mesh_rendering.rasterize import PixelFragments
from ..mesh_rendering.visibility import HighestScore, pixel_candidates
from .color import AlbedoField, display_to_linear, sample_albedo
from .topology import FloatArray, IntArray, Surface, vertex_normals
from .unwrap import Unwrapping

SMALLEST_AREA = 1e-9  # squared texels of twice a face's area, below which no texel takes its color
BATCH = 1 << 15  # texels between two calls of `progress` and `should_stop`
REACH = 1.5  # texels beyond a triangle's edge that are its own: what bilinear filtering reads there


@dataclass(frozen=True)
class Texture:
    """image (s, s, 3) uint8 albedo in display sRGB, row 0 at the top, and the uv of the mesh's corners in it."""

    image: NDArray[np.uint8]
    unwrapping: Unwrapping

    def linear_at(self, uv: FloatArray) -> FloatArray:
        """Linear RGB (..., 3) at places (..., 2), between texel centers bilinear in linear RGB, as renderers do."""
        size = len(self.image)
        place = np.clip(np.asarray(uv, dtype=np.float64) * size - 0.5, 0.0, size - 1.0)
        low = np.minimum(place.astype(np.int64), size - 2)
        column, row = low[..., 0], low[..., 1]
        x, y = np.moveaxis(place - low, -1, 0)[..., None]
        decoded = display_to_linear(np.arange(256) / 255.0)
        texel = [[decoded[self.image[row + down, column + right]] for right in (0, 1)] for down in (0, 1)]
        return (1 - y) * ((1 - x) * texel[0][0] + x * texel[0][1]) + y * ((1 - x) * texel[1][0] + x * texel[1][1])

    def seen(self, fragments: PixelFragments) -> FloatArray:
        """Linear RGB (r, r, 3) at the pixels of a rasterized view of the mesh; meaningless where no face is seen."""
        return self.linear_at(fragments.interpolate(self.unwrapping.corners, self.unwrapping.uv))

    def png(self) -> bytes:
        """The image as an 8-bit PNG without a color profile: glTF reads base color textures as sRGB in any case."""
        stream = io.BytesIO()
        Image.fromarray(self.image).save(stream, format="PNG")
        return stream.getvalue()


@dataclass(frozen=True)
class TexelFragments:
    """Texels that belong to a face: pixel (m,) = row * size + column, face (m,), barycentric (m, 3) in that face."""

    pixel: IntArray
    face: IntArray
    barycentric: FloatArray


@torch.no_grad()
def covered_texels(unwrapping: Unwrapping, size: int, reach: float = REACH) -> TexelFragments:
    """Every texel whose center is in a face, or within `reach` texels of one and then at that face's edge.

    Where several faces claim a texel, the one it lies deepest in, or least outside of, has it.
    """
    # Columns and rows in which whole numbers are texel centers.
    points = torch.from_numpy(np.asarray(unwrapping.uv, dtype=np.float64) * size - 0.5)
    corners = points[torch.from_numpy(unwrapping.corners.astype(np.int64))]
    edges = corners.roll(-1, 1) - corners.roll(-2, 1)  # opposite each corner
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).abs()
    # A barycentric coordinate times the height over that edge is the distance to the edge in texels.
    heights = area[:, None] / edges.norm(dim=2).clamp(min=1e-12)
    deepest = HighestScore(size * size, -np.inf, points.device)
    weights = torch.zeros(size * size, 3, dtype=torch.float64)
    for found in pixel_candidates(corners, area > SMALLEST_AREA, size, reach):
        depth = (found.barycentric * heights[found.triangle]).amin(1)  # distance to the nearest edge, negative outside
        near = (depth >= -reach).nonzero(as_tuple=True)[0]
        pixel = found.row[near] * size + found.column[near]
        deepest.update(pixel, depth[near], found.triangle[near])
        own = near[deepest.winner[pixel] == found.triangle[near]]
        weights[found.row[own] * size + found.column[own]] = found.barycentric[own]
    pixel = (deepest.winner >= 0).nonzero(as_tuple=True)[0]
    inside = weights[pixel].clamp(min=0.0)
    return TexelFragments(pixel.numpy(), deepest.winner[pixel].numpy(), (inside / inside.sum(1, keepdim=True)).numpy())


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
    """The field's albedo at every texel of an image of `size` a side; None when `should_stop` ends the bake.

    `surface` is the mesh in scene units, `cell` the spacing of its grid. Colors are sampled as for vertices
    (`sample_albedo`), at the texel's point of the triangle, moved by `onto` first. Texels of no face take the color of
    the nearest that has one, so that neither filtering nor small mip levels show what is between the charts.
    """
    texels = covered_texels(unwrapping, size)
    normals = vertex_normals(surface)
    image = np.zeros((size * size, 3), dtype=np.uint8)
    for start in range(0, len(texels.pixel), BATCH):
        if should_stop():
            return None
        rows = slice(start, start + BATCH)
        faces, weights = surface.faces[texels.face[rows]], texels.barycentric[rows]
        point = np.einsum("mc,mck->mk", weights, surface.vertices[faces])
        normal = np.einsum("mc,mck->mk", weights, normals[faces])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        image[texels.pixel[rows]] = np.rint(255.0 * sample_albedo(field, onto(point), normal, cell)).astype(np.uint8)
        progress(min(1.0, (start + BATCH) / len(texels.pixel)))
    return Texture(fill_gaps(image.reshape(size, size, 3), texels.pixel), unwrapping)


def fill_gaps(image: NDArray[np.uint8], known: IntArray) -> NDArray[np.uint8]:
    """The image (s, s, 3) with every texel that is not in `known` (m,) colored as the nearest that is."""
    empty = np.ones(image.shape[:2], dtype=bool)
    empty.reshape(-1)[known] = False
    if empty.all():
        return image
    row, column = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    return image[row, column]
