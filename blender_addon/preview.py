# SPDX-License-Identifier: GPL-3.0-or-later
"""The preview as an Image datablock, and Image Editors that show it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import bpy
from bpy.app.handlers import persistent

from . import addon_state, compat
from .preview_history import encode_png
from .shared.messages import PreviewFrame

IMAGE = "Dreamwright Preview"
_BLANK = PreviewFrame("", 0, 1, 1, zlib.compress(bytes(3)))  # one black pixel

_shown: PreviewFrame | None = None
_spaces_before_save: list[Any] = []  # Image Editors that showed the image before the file was saved


def image() -> Any:
    """The image, looked up by name each time: undo and loading a file remove datablocks."""
    found = bpy.data.images.get(IMAGE)
    if found is None:
        found = bpy.data.images.new(IMAGE, 1, 1)
        found.source = "FILE"
        compat.keep_out_of_files(found)
        _pack_image(found, _shown or _BLANK)
        for space in _image_spaces():
            if space.image is None and not space.use_image_pin:
                space.image = found
    return found


def _pack_image(target: Any, frame: PreviewFrame) -> None:
    # As a packed file, not through `pixels`: Blender treats changed pixels as unsaved work, asks about them on
    # quitting, and takes ten times as long.
    data = encode_png(frame)
    target.pack(data=data, data_len=len(data))
    target.buffers_free()
    target.update()  # otherwise editors keep drawing the old pixels


def show(frame: PreviewFrame) -> None:
    """Put a frame into the image and redraw the editors that show it. Raises ProtocolError."""
    global _shown
    if frame is _shown and bpy.data.images.get(IMAGE) is not None:
        return
    target = image()
    _pack_image(target, frame)
    if _shown is None or (_shown.width, _shown.height) != (frame.width, frame.height):
        _schedule_fit()
    _shown = frame
    for area in _areas("IMAGE_EDITOR"):
        if area.spaces.active.image == target:
            area.tag_redraw()


def current_frame() -> PreviewFrame | None:
    """The frame of the active job at the slider's position."""
    job = addon_state.active_job()
    history = addon_state.session().previews.get(job.job) if job else None
    return history.at(addon_state.properties().preview_position) if history else None


def show_current() -> None:
    """Show the frame at the slider's position; an invalid frame is reported and skipped."""
    frame = current_frame()
    if frame is None:
        return
    try:
        show(frame)
    except ValueError as error:
        addon_state.session().notify(f"A preview cannot be shown: {error}")


def _areas(kind: str) -> Iterator[Any]:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == kind:
                yield area


def _image_spaces() -> Iterator[Any]:
    for area in _areas("IMAGE_EDITOR"):
        yield area.spaces.active


def open_editor(context: Any) -> bool:
    """Show the image in an Image Editor, or in a part split off the 3D view; False when neither is possible."""
    target = image()
    spaces = [space for space in _image_spaces() if not space.use_image_pin or space.image == target]
    # Preferred: an editor that shows the image, then an empty one, then one with another image that is not pinned.
    spaces.sort(key=lambda space: 0 if space.image == target else 1 if space.image is None else 2)
    _schedule_fit()
    if spaces:
        spaces[0].image = target
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
    new = [area for area in window.screen.areas if area not in before]
    if not new:
        return False
    new[0].type = "IMAGE_EDITOR"
    new[0].spaces.active.image = target
    return True


def _schedule_fit() -> None:
    # Delayed: an editor that has just opened has no size until Blender draws it.
    if not bpy.app.background and not bpy.app.timers.is_registered(_fit_view):
        bpy.app.timers.register(_fit_view, first_interval=0.1)


def _fit_view() -> None:
    """Zoom the editors that show the image so that it fills them; later zooming is left alone."""
    if _shown is None:
        return
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "IMAGE_EDITOR" and getattr(area.spaces.active.image, "name", "") == IMAGE:
                region = next(region for region in area.regions if region.type == "WINDOW")
                with bpy.context.temp_override(window=window, area=area, region=region):
                    bpy.ops.image.view_all(fit_view=True)


@persistent
def _before_save(*_: Any) -> None:
    """Blender before 4.2 saves every image that an editor shows: remove it until the file is written."""
    found = bpy.data.images.get(IMAGE)
    _spaces_before_save.clear()
    if found is not None and not compat.keep_out_of_files(found):
        _spaces_before_save.extend(space for space in _image_spaces() if space.image == found)
        bpy.data.images.remove(found)


@persistent
def _after_save(*_: Any) -> None:
    for space in _spaces_before_save:
        space.image = image()
    _spaces_before_save.clear()


_HANDLERS = (("save_pre", _before_save), ("save_post", _after_save))


def register() -> None:
    """Install the handlers that keep the image out of saved files."""
    for event, handler in _HANDLERS:
        getattr(bpy.app.handlers, event).append(handler)


def unregister() -> None:
    """Remove the handlers; the image stays until Blender quits or loads another file."""
    global _shown
    for event, handler in reversed(_HANDLERS):
        getattr(bpy.app.handlers, event).remove(handler)
    if bpy.app.timers.is_registered(_fit_view):
        bpy.app.timers.unregister(_fit_view)
    _spaces_before_save.clear()
    _shown = None
