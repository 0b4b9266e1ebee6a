# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects as assets of the Asset Browser: description, author, tags, catalog and thumbnail."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

AUTHOR = "Dreamwright"
TAG = "dreamwright"  # of every asset


def mark_as_asset(made: Any, description: str, tags: Iterable[str] = (), catalog_id: str = "") -> None:
    """Add an object to the Asset Browser."""
    made.asset_mark()
    made.asset_data.description = description
    made.asset_data.author = AUTHOR
    for tag in (TAG, *tags):
        made.asset_data.tags.new(tag, skip_if_exists=True)
    if catalog_id:
        made.asset_data.catalog_id = catalog_id


def set_thumbnail(made: Any, image: np.ndarray) -> None:
    """Give an asset a thumbnail: (h, w, 3) uint8 in display sRGB, row 0 at the top."""
    height, width = image.shape[:2]
    target = made.preview_ensure()
    target.image_size = (width, height)
    pixels = np.ones((height, width, 4), np.float32)
    pixels[..., :3] = image[::-1] / np.float32(255)  # Blender's rows start at the bottom
    target.image_pixels_float.foreach_set(pixels.ravel())


def set_properties(made: Any, values: dict[str, Any]) -> None:
    """Set custom properties of an object."""
    for key, value in values.items():
        made[key] = value
