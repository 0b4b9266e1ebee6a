# SPDX-License-Identifier: GPL-3.0-or-later
"""The contact sheet of the selected group in an Image datablock, updated by the timer while it is there."""

from __future__ import annotations

import time
from typing import Any

from . import addon_state
from .contact_sheet_pixels import sheet_pixels
from .editor_image import EditorImage
from .preview_history import png_of_pixels

IMAGE = "Dreamwright Contact Sheet"
INTERVAL_S, LATEST_S = 0.25, 1.0  # between two updates; after which a busy tick updates it all the same
BUSY_S = 0.0015  # a tick that has taken longer leaves the sheet to the next one

_image = EditorImage(IMAGE)
_shown: tuple[Any, ...] = ()  # what the image shows: the group's jobs, the steps of their previews, the picked one
_updated_at = 0.0


def update(group: str) -> bool:
    """Show the newest previews of a group if they or its picked job have changed; True when the image changed."""
    global _shown, _updated_at
    session = addon_state.session()
    members = session.groups().get(group, [])
    if not members:
        return False
    tiles = [session.newest_previews.tiles.get(job.job) for job in members]
    names = [job.job for job in members]
    picked = names.index(session.picked[group]) if session.picked.get(group) in names else -1
    content = (group, tuple(names), tuple(tile.step if tile else -1 for tile in tiles), picked)
    if content == _shown and _image.exists:
        return False
    pixels = sheet_pixels([tile.pixels if tile else None for tile in tiles], picked)
    _image.show(png_of_pixels(pixels), (pixels.shape[1], pixels.shape[0]))
    _shown, _updated_at = content, time.monotonic()
    return True


def shown_group() -> str:
    """The group whose sheet the image shows; "" before the first."""
    return str(_shown[0]) if _shown else ""


def is_wanted() -> bool:
    """Whether the image was asked for and is there, or was taken by an undo out of an editor that is empty now."""
    return _image.is_wanted


def follow(spent_s: float = 0.0) -> bool:
    """Update the image, if it is wanted, at most every INTERVAL_S; True when it changed.

    It follows the selection: another group's sheet replaces it once that group is selected. `spent_s`: what this tick
    has taken already.
    """
    due_s = LATEST_S if spent_s > BUSY_S else INTERVAL_S
    if time.monotonic() - _updated_at < due_s or not _image.is_wanted:
        return False
    return update(addon_state.active_group() or shown_group())


def open_editor(context: Any, group: str) -> bool:
    """Show the sheet of a group in an Image Editor, or in a part split off the 3D view; False when neither works."""
    update(group)
    return _image.open_editor(context)


def register() -> None:
    """Nothing is made before the sheet is asked for."""


def unregister() -> None:
    """Forget what was shown."""
    global _shown
    _shown = ()
