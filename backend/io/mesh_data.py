# SPDX-License-Identifier: GPL-3.0-or-later
"""What the mesh readers share: the mesh of a file, their exception, and vertex colors from corner colors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..geometry.color import display_to_linear
from ..geometry.topology import FloatArray, IntArray

PLAIN = float(display_to_linear(np.array(0.5)))  # linear gray of what has no color


class UnreadableMeshError(Exception):
    """A file that cannot be read truly as a mesh; the message is a clause that names what is wrong with it."""


class LinearImage(Protocol):
    """An image that is looked up in linear light: `texture_sampling.ImageTexture`."""

    def linear_at(self, uv: FloatArray) -> FloatArray:
        """Linear RGB (n, 3) at uv (n, 2), v down from the top."""
        ...


@dataclass(frozen=True)
class FaceTexture:
    """The base color texture of faces `first` to first + n - 1: image, uv (n, 3, 2) of their corners with v down, and
    tint (n, 3, 3), the linear color of the corners that it is multiplied with.
    """

    first: int
    image: LinearImage
    uv: FloatArray
    tint: FloatArray


@dataclass(frozen=True)
class MeshData:
    """vertices (V, 3) float64, faces (F, 3) int64, albedo (V, 3) float64 linear.

    notices: what was left out of the file. normals (V, 3) float64 unit, where the reader knows the file's own.
    textures: where the reader knows how albedo varies within faces.
    """

    vertices: FloatArray
    faces: IntArray
    albedo: FloatArray
    notices: tuple[str, ...] = ()
    normals: FloatArray | None = None
    textures: tuple[FaceTexture, ...] = ()


def check_indices(corners: IntArray, count: int) -> None:
    """Raise UnreadableMeshError unless all corners (...) are vertex numbers below `count`."""
    if corners.size and (int(corners.min()) < 0 or int(corners.max()) >= count):
        wrong = int(corners.min()) if int(corners.min()) < 0 else int(corners.max())
        raise UnreadableMeshError(f"a face names vertex {wrong}; allowed are 0 to {count - 1}")


def mean_corner_colors(count: int, corners: IntArray, colors: FloatArray, unused: FloatArray | float) -> FloatArray:
    """(count, 3) vertex colors: the mean of the linear colors (C, 3) of each vertex's corners (C,).

    Exact where all of them are equal. Vertices that no corner names get `unused`, (count, 3) or a number.
    """
    number = np.bincount(corners, minlength=count)
    last = np.zeros((count, 3))
    last[corners] = colors
    # The mean of the differences, not of the values: equal colors have none, so their mean is not rounded.
    difference = colors - last[corners]
    mean = [np.bincount(corners, difference[:, channel], minlength=count) for channel in range(3)]
    mean_color = last + np.stack(mean, axis=1) / np.maximum(number, 1)[:, None]
    return np.where(
        (number > 0)[:, None], mean_color, np.broadcast_to(np.asarray(unused, dtype=np.float64), (count, 3))
    )
