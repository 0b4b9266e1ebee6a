# SPDX-License-Identifier: GPL-3.0-or-later
"""Preview pictures in an Image datablock, and an Image Editor that shows it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import bpy
from bpy.app.handlers import persistent

from . import addon_state, compat, properties
from .preview_frames import png_of
from .shared.messages import PreviewFrame

IMAGE = "Dreamwright Preview"
_BLANK = PreviewFrame("", 0, 1, 1, zlib.compress(bytes(3)))  # one black pixel

_shown: PreviewFrame | None = None
_spaces_before: list[Any] = []  # Image Editors that showed the image before the file was saved


def image() -> Any:
    """The image. Looked up by name each time: undo and loading a file remove datablocks at will."""
    found = bpy.data.images.get(IMAGE)
    if found is None:
        found = bpy.data.images.new(IMAGE, 1, 1)
        found.source = "FILE"
        compat.keep_out_of_files(found)
        _put(found, _shown or _BLANK)
        for space in _spaces():
            if space.image is None and not space.use_image_pin:
                space.image = found
    return found


def _put(target: Any, frame: PreviewFrame) -> None:
    # As a packed file and not through `pixels`: Blender takes changed pixels for the artist's work, asks on quitting
    # whether to save them, and takes ten times as long for it.
    data = png_of(frame)
    target.pack(data=data, data_len=len(data))
    target.buffers_free()
    target.update()  # or the editors go on drawing the picture that they have


def show(frame: PreviewFrame) -> None:
    """Put a picture into the image and have the editors that show it drawn again. Raises ProtocolError."""
    global _shown
    if frame is _shown and bpy.data.images.get(IMAGE) is not None:
        return
    target = image()
    _put(target, frame)
    if _shown is None or (_shown.width, _shown.height) != (frame.width, frame.height):
        _fit_soon()
    _shown = frame
    for area in _areas("IMAGE_EDITOR"):
        if area.spaces.active.image == target:
            area.tag_redraw()


def current_frame() -> PreviewFrame | None:
    """The picture of the chosen job that the slider stands at."""
    job = properties.active_job()
    ring = addon_state.session().frames.get(job.job) if job else None
    return ring.at(properties.artist().scrub) if ring else None


def show_current() -> None:
    """Show the picture that the slider stands at; a picture that cannot be read is told and skipped."""
    frame = current_frame()
    if frame is None:
        return
    try:
        show(frame)
    except ValueError as error:
        addon_state.session().say(f"A preview cannot be shown: {error}")


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
    shown = image()
    spaces = [space for space in _spaces() if not space.use_image_pin or space.image == shown]
    # Best first: it is there already, then nothing is covered, then an unpinned picture makes way.
    spaces.sort(key=lambda space: 0 if space.image == shown else 1 if space.image is None else 2)
    _fit_soon()
    if spaces:
        spaces[0].image = shown
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
    fresh[0].spaces.active.image = shown
    return True


def _fit_soon() -> None:
    # Not at once: an editor that has just opened has no size before Blender draws it.
    if not bpy.app.background and not bpy.app.timers.is_registered(_fit):
        bpy.app.timers.register(_fit, first_interval=0.1)


def _fit() -> None:
    """Have the picture fill the editors that show it, as it is smaller than they are; later zooming stays as it is."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if (
                area.type == "IMAGE_EDITOR"
                and _shown is not None
                and getattr(area.spaces.active.image, "name", "") == IMAGE
            ):
                region = next(region for region in area.regions if region.type == "WINDOW")
                with bpy.context.temp_override(window=window, area=area, region=region):
                    bpy.ops.image.view_all(fit_view=True)


@persistent
def _before_save(*_: Any) -> None:
    """Before 4.2 Blender writes every image that an editor shows: take it away until the file is written."""
    found = bpy.data.images.get(IMAGE)
    _spaces_before.clear()
    if found is not None and not compat.keep_out_of_files(found):
        _spaces_before.extend(space for space in _spaces() if space.image == found)
        bpy.data.images.remove(found)


@persistent
def _after_save(*_: Any) -> None:
    for space in _spaces_before:
        space.image = image()
    _spaces_before.clear()


_HANDLERS = (("save_pre", _before_save), ("save_post", _after_save))


def register() -> None:
    """Keep the image out of the artist's files."""
    for moment, handler in _HANDLERS:
        getattr(bpy.app.handlers, moment).append(handler)


def unregister() -> None:
    """Let go of the picture; the image stays until Blender quits or loads another file."""
    global _shown
    for moment, handler in reversed(_HANDLERS):
        getattr(bpy.app.handlers, moment).remove(handler)
    if bpy.app.timers.is_registered(_fit):
        bpy.app.timers.unregister(_fit)
    _spaces_before.clear()
    _shown = None
