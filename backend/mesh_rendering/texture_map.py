# SPDX-License-Identifier: GPL-3.0-or-later
"""A texture on a rasterized mesh, sampled bilinearly and differentiable in its texels and in where it is sampled."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TextureMap:
    """uv (F * 3, 2) of the corners of a mesh's faces, u right and v down from the top left, in an image (s, s, c)."""

    uv: Tensor
    image: Tensor


def bilinear(image: Tensor, uv: Tensor) -> Tensor:
    """Values (m, c) of an image (s, s, c), s > 1, at uv (m, 2) in [0, 1], as `Texture.linear_at` places them.

    Texel (row i, column j) has its center at ((j + 1/2) / s, (i + 1/2) / s). Places beyond the outermost centers take
    the edge's value. Differentiable in the image, and in uv except on the lines between centers.
    """
    size = image.shape[0]
    place = (uv * size - 0.5).clamp(0, size - 1)
    low = place.detach().floor().clamp(max=size - 2)
    column, row = low.long().unbind(-1)
    x, y = (place - low).split(1, dim=-1)
    flat, first = image.reshape(size * size, -1), row * size + column
    upper, lower = (
        (1 - x) * flat.index_select(0, first + step) + x * flat.index_select(0, first + step + 1) for step in (0, size)
    )
    return (1 - y) * upper + y * lower
