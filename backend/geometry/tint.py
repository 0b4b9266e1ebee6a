# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of vertex colors, carried over to a texture of the same mesh."""

from __future__ import annotations

import numpy as np

from .texture import Texture, covered_texels, fill_gaps
from .topology import FloatArray, IntArray


def tinted(texture: Texture, faces: IntArray, tints: FloatArray) -> Texture:
    """The texture of a mesh with faces (F, 3), with the display-sRGB changes (V, 3) of its vertices added.

    Changes are interpolated within each face; the result is cut off at 0 and 1.
    """
    size = len(texture.image)
    texels = covered_texels(texture.unwrapping, size)
    change = np.einsum("mc,mck->mk", texels.barycentric, np.asarray(tints, np.float64)[faces[texels.face]])
    image = texture.image.reshape(-1, 3).copy()
    display = np.clip(image[texels.pixel] / 255.0 + change, 0.0, 1.0)
    image[texels.pixel] = np.rint(255.0 * display).astype(np.uint8)
    return Texture(fill_gaps(image.reshape(size, size, 3), texels.pixel), texture.unwrapping)
