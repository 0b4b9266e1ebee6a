# SPDX-License-Identifier: GPL-3.0-or-later
"""Thumbnails of jobs for the list: icons of Blender's preview collection, one per job with a newest preview."""

from __future__ import annotations

from typing import Any

import bpy
import bpy.utils.previews
import numpy as np

from . import addon_state
from .newest_previews import TILE_PIXELS

_collection: Any = None


def icon_of(job: str) -> int:
    """The icon's number; 0 while the job has no thumbnail."""
    found = _collection.get(job) if _collection is not None else None
    return found.icon_id if found is not None else 0


def update(job: str) -> None:
    """Make or change the icon of a job from its tile."""
    tile = addon_state.session().newest_previews.tiles.get(job)
    if tile is None or _collection is None:
        return
    pixels = np.ones((TILE_PIXELS, TILE_PIXELS, 4), np.float32)
    pixels[..., :3] = tile.pixels[::-1] / np.float32(255)  # Blender's rows start at the bottom
    icon = _collection.get(job) or _collection.new(job)
    icon.image_size = (TILE_PIXELS, TILE_PIXELS)
    icon.image_pixels_float.foreach_set(pixels.ravel())


def remove_others() -> None:
    """Free the icons of jobs that have no tile any more."""
    if _collection is not None:
        for job in set(_collection) - set(addon_state.session().newest_previews.tiles):
            del _collection[job]


def count() -> int:
    """How many icons there are."""
    return len(_collection) if _collection is not None else 0


def register() -> None:
    """Make the collection."""
    global _collection
    _collection = bpy.utils.previews.new()


def unregister() -> None:
    """Free every icon."""
    global _collection
    if _collection is not None:
        bpy.utils.previews.remove(_collection)
        _collection = None
