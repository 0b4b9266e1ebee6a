# SPDX-License-Identifier: GPL-3.0-or-later
"""Preview pictures in an Image datablock, and an Image Editor that shows it."""

from __future__ import annotations

from typing import Any, Iterator

import bpy
import numpy as np

from . import artist, live
from .frames import decode_frame
from .shared.messages import PreviewFrame

IMAGE = "Dreamwright Preview"

_buffer = np.empty((0, 0, 4), np.float32)  # kept, for it would be the largest allocation of a tick
_shown: PreviewFrame | None = None


def pixels_of(frame: PreviewFrame) -> np.ndarray:
    """(height, width, 4) float32 as Blender wants it: rows from the bottom, opaque. Reused by the next call."""
    global _buffer
    picture = decode_frame(frame)
    if _buffer.shape[:2] != picture.shape[:2]:
        _buffer = np.ones((*picture.shape[:2], 4), np.float32)
    np.multiply(picture[::-1], np.float32(1 / 255), out=_buffer[..., :3])
    return _buffer


def image_of(width: int, height: int) -> Any:
    """The image at this size. Looked up by name each time: undo and loading a file remove datablocks at will."""
    image = bpy.data.images.get(IMAGE)
    if image is None:
        image = bpy.data.images.new(IMAGE, width, height, alpha=False, float_buffer=False)
        for space in _spaces():
            if space.image is None and not space.use_image_pin:
                space.image = image
    elif tuple(image.size) != (width, height):
        image.scale(width, height)
    return image


def show(frame: PreviewFrame) -> None:
    """Put a picture into the image and have the editors that show it drawn again. Raises ProtocolError."""
    global _shown
    if frame is _shown and bpy.data.images.get(IMAGE) is not None:
        return
    pixels = pixels_of(frame)
    image = image_of(frame.width, frame.height)
    image.pixels.foreach_set(pixels.ravel())
    image.update()
    _shown = frame
    for area in _areas("IMAGE_EDITOR"):
        if area.spaces.active.image == image:
            area.tag_redraw()


def current_frame() -> PreviewFrame | None:
    """The picture of the chosen job that the slider stands at."""
    job = artist.active_job()
    ring = live.session().frames.get(job.job) if job else None
    return ring.at(artist.artist().scrub) if ring else None


def show_current() -> None:
    """Show the picture that the slider stands at; a picture that cannot be read is told and skipped."""
    frame = current_frame()
    if frame is None:
        return
    try:
        show(frame)
    except ValueError as error:
        live.session().say(f"A preview cannot be shown: {error}")


def _areas(kind: str) -> Iterator[Any]:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == kind:
                yield area


def _spaces() -> Iterator[Any]:
    for area in _areas("IMAGE_EDITOR"):
        yield area.spaces.active


def open_editor(context: Any) -> bool:
    """Show the image in an Image Editor: one that has it, an empty one, an unpinned one, or half of the 3D view."""
    image = bpy.data.images.get(IMAGE) or image_of(64, 64)
    spaces = [space for space in _spaces() if not space.use_image_pin or space.image == image]
    # Best first: it is there already, then nothing is covered, then an unpinned picture makes way.
    spaces.sort(key=lambda space: 0 if space.image == image else 1 if space.image is None else 2)
    if spaces:
        spaces[0].image = image
        return True
    views = sorted(_areas("VIEW_3D"), key=lambda area: area.width * area.height)
    if not views or not hasattr(context, "temp_override"):
        return False
    view = context.area if context.area in views else views[-1]
    window = next(w for w in context.window_manager.windows if view in w.screen.areas[:])
    before = set(window.screen.areas[:])
    region = next(region for region in view.regions if region.type == "WINDOW")
    with context.temp_override(window=window, area=view, region=region):
        bpy.ops.screen.area_split(direction="VERTICAL", factor=0.6)
    fresh = [area for area in window.screen.areas if area not in before]
    if not fresh:
        return False
    fresh[0].type = "IMAGE_EDITOR"
    fresh[0].spaces.active.image = image
    return True


def unregister() -> None:
    """Let go of the picture; the image stays with the file that it is in."""
    global _shown, _buffer
    _shown, _buffer = None, np.empty((0, 0, 4), np.float32)


def register() -> None:
    """Nothing to do before the first picture."""
