# SPDX-License-Identifier: GPL-3.0-or-later
"""The texels of a mesh's texture, as an image that is differentiable in those that lie in a face."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..geometry.texel_layout import texel_layout
from ..geometry.texture import Texture, fill_gaps
from ..geometry.topology import FloatArray, IntArray, Surface


class TexelColors:
    """A texture on a surface, changed in its own texels only (`texel_layout`); those beside the charts follow.

    base (m, 3): display sRGB of the own texels at the start. uv (F * 3, 2): of the faces' corners.
    """

    def __init__(self, surface: Surface, texture: Texture, device: torch.device | str = "cpu") -> None:
        self.unwrapping, self.size = texture.unwrapping, len(texture.image)
        self.layout = layout = texel_layout(surface, texture.unwrapping, self.size)
        known = texture.image.reshape(-1, 3)[layout.own.pixel] / 255.0
        self.base = torch.from_numpy(known).float().to(device)
        self.uv = torch.from_numpy(self.unwrapping.uv[self.unwrapping.corners.reshape(-1)]).float().to(device)
        self._pixel = torch.from_numpy(np.concatenate([layout.own.pixel, layout.border])).to(device)
        self._source = torch.from_numpy(layout.source.reshape(-1)).to(device)
        self._weight = torch.from_numpy(layout.weight).float().to(device)
        shown = torch.zeros(self.size**2, 1, device=device).index_fill_(0, self._pixel, 1.0)
        self._shown = _blurred(shown.view(self.size, self.size, 1))

    def image(self, colors: Tensor) -> Tensor:
        """The image (s, s, 3) of own texels (m, 3), differentiable; 0 where no face is near."""
        around = colors.index_select(0, self._source).view(-1, 4, 3)
        border = (self._weight.to(colors)[..., None] * around).sum(1)
        empty = colors.new_zeros(self.size**2, 3)
        return empty.index_copy(0, self._pixel, torch.cat([colors, border])).view(self.size, self.size, 3)

    def smoothed(self, values: Tensor, rounds: int) -> Tensor:
        """Own texels (m, 3), averaged with their neighbors `rounds` times: by (1 2 1) / 4 in each axis, across seams.

        A pattern that alternates from texel to texel vanishes in one round; constants stay. Differentiable.
        """
        own = self._pixel[: len(values)]
        for _ in range(rounds):
            mean = _blurred(self.image(values)) / self._shown.to(values).clamp(min=1e-6)
            values = mean.view(-1, 3).index_select(0, own)
        return values

    def at_vertices(self, values: FloatArray, faces: IntArray) -> FloatArray:
        """Vertex values (V, 3), interpolated at the own texels of faces (F, 3): (m, 3)."""
        own = self.layout.own
        at: FloatArray = np.einsum("mc,mck->mk", own.barycentric, np.asarray(values, np.float64)[faces[own.face]])
        return at

    @torch.no_grad()
    def texture(self, colors: Tensor) -> Texture:
        """The 8-bit texture of own texels (m, 3); what no face is near is colored as the nearest that one is."""
        shown = np.rint(255.0 * self.image(colors.clamp(0, 1)).cpu().double().numpy()).astype(np.uint8)
        return Texture(fill_gaps(shown, self._pixel.cpu().numpy()), self.unwrapping)


def _blurred(image: Tensor) -> Tensor:
    """(1 2 1) / 4 along rows and columns of an image (s, s, c), as if it were 0 beyond its edges."""
    for axis in (0, 1):
        before, after = image.roll(1, axis), image.roll(-1, axis)
        before.select(axis, 0).zero_()
        after.select(axis, -1).zero_()
        image = 0.25 * before + 0.5 * image + 0.25 * after
    return image


def vertex_albedo(texture: Texture, count: int) -> FloatArray:
    """Linear RGB (V, 3) that a texture has at the `count` vertices: the mean over the places of each."""
    places = texture.unwrapping
    total, number = np.zeros((count, 3)), np.zeros(count)
    np.add.at(total, places.vertex, texture.linear_at(places.uv))
    np.add.at(number, places.vertex, 1.0)
    return total / np.maximum(number, 1.0)[:, None]
