# SPDX-License-Identifier: GPL-3.0-or-later
"""Image textures of mesh files, looked up at points: decoding, wrapping and bilinear filtering in linear light."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..geometry.color import display_to_linear
from ..geometry.topology import FloatArray, IntArray
from .mesh_data import UnreadableMeshError

LARGEST_PIXELS = 16384 * 16384

Wrap = Literal["repeat", "mirror", "clamp"]


@dataclass(frozen=True)
class ImageTexture:
    """pixels (h, w, 3) float32 display sRGB in [0, 1], row 0 at the top, with the sampler's wrapping and filter."""

    pixels: NDArray[np.float32]
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")
    nearest: bool = False

    def linear_at(self, uv: FloatArray) -> FloatArray:
        """Linear RGB (n, 3) at uv (n, 2), v down from the top. Raises UnreadableMeshError if uv is not finite."""
        if not np.isfinite(uv).all():
            raise UnreadableMeshError("its texture coordinates are not all finite numbers")
        height, width = self.pixels.shape[:2]
        place = np.asarray(uv, dtype=np.float64) * [width, height] - 0.5
        if self.nearest:
            return self._texel(*np.floor(place + 0.5).T)
        low = np.floor(place)
        (x, y), (column, row) = (place - low).T[:, :, None], low.T
        top = (1 - x) * self._texel(column, row) + x * self._texel(column + 1, row)
        bottom = (1 - x) * self._texel(column, row + 1) + x * self._texel(column + 1, row + 1)
        return (1 - y) * top + y * bottom

    def _texel(self, column: FloatArray, row: FloatArray) -> FloatArray:
        height, width = self.pixels.shape[:2]
        at = self.pixels[_wrapped(row, height, self.wrap[1]), _wrapped(column, width, self.wrap[0])]
        return display_to_linear(at.astype(np.float64))


def decode_image(data: bytes, name: str) -> NDArray[np.float32]:
    """RGB (h, w, 3) in [0, 1] of an encoded image; alpha is dropped. Raises UnreadableMeshError, naming the image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > LARGEST_PIXELS:
                    raise UnreadableMeshError(f"its texture {name} has {image.width} x {image.height} pixels")
                if image.mode.startswith("I"):  # 16-bit gray, which Pillow's own conversion would clip
                    gray = np.asarray(image, dtype=np.float32) / 65535.0
                    return np.repeat(gray[..., None], 3, axis=2)
                return np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255.0)
    except UnreadableMeshError:
        raise
    except Exception as error:  # Pillow raises whatever a damaged image makes its decoders raise
        raise UnreadableMeshError(f"its texture {name} cannot be decoded ({type(error).__name__})") from error


def _wrapped(index: FloatArray, size: int, wrap: Wrap) -> IntArray:
    if wrap == "clamp":
        return np.clip(index, 0, size - 1).astype(np.int64)
    if wrap == "mirror":
        folded = np.mod(index, 2 * size)
        return np.minimum(folded, 2 * size - 1 - folded).astype(np.int64)
    return np.mod(index, size).astype(np.int64)
