# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of the add-on in Image Editors: datablocks with a fixed name that are kept out of saved files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bpy
import numpy as np
from bpy.app.handlers import persistent

from . import compat
from .preview_history import png_of_pixels

_BLANK = np.zeros((1, 1, 3), np.uint8)  # one black pixel

_images: list[EditorImage] = []
_spaces_before_save: list[tuple[Any, EditorImage]] = []  # Image Editors that showed an image before the file was saved


class EditorImage:
    """One image, as a PNG. The datablock is looked up by name each time: undo and loading a file remove datablocks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._png, self._size = b"", (0, 0)
        self._fit = self._fit_view  # once: Blender knows a timer by the object, and each access makes another
        _images.append(self)

    @property
    def exists(self) -> bool:
        """Whether the datablock is there now."""
        return bpy.data.images.get(self.name) is not None

    @property
    def is_wanted(self) -> bool:
        """Whether the datablock is there, or an undo took it out of an Image Editor that is empty now."""
        return self.exists or bool(self._png and any(_is_empty(space) for space in _spaces()))

    def datablock(self) -> Any:
        """The datablock, made anew where it is missing, with what was shown last."""
        found = bpy.data.images.get(self.name)
        if found is None:
            found = bpy.data.images.new(self.name, 1, 1)
            found.source = "FILE"
            compat.keep_out_of_files(found)
            _pack(found, self._png or png_of_pixels(_BLANK))
            for space in _spaces():
                if _is_empty(space):
                    space.image = found
        return found

    def show(self, png: bytes, size: tuple[int, int]) -> None:
        """Put a PNG of `size` (width, height) into the image and redraw the editors that show it."""
        target = self.datablock()
        _pack(target, png)
        if size != self._size:
            self._schedule_fit()
        self._png, self._size = png, size
        for area in _areas("IMAGE_EDITOR"):
            if area.spaces.active.image == target:
                area.tag_redraw()

    def open_editor(self, context: Any) -> bool:
        """Show the image in an Image Editor, or in a part split off the 3D view; False when neither is possible."""
        target = self.datablock()
        spaces = [space for space in _spaces() if not space.use_image_pin or space.image == target]
        # Preferred: an editor that shows the image, then an empty one, then one with another image that is not pinned.
        spaces.sort(key=lambda space: 0 if space.image == target else 1 if space.image is None else 2)
        self._schedule_fit()
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

    def forget(self) -> None:
        """Show nothing of before when the datablock is made anew, and stop the timer."""
        self._png, self._size = b"", (0, 0)
        if bpy.app.timers.is_registered(self._fit):
            bpy.app.timers.unregister(self._fit)

    def _schedule_fit(self) -> None:
        # Delayed: an editor that has just opened has no size until Blender draws it.
        if not bpy.app.background and not bpy.app.timers.is_registered(self._fit):
            bpy.app.timers.register(self._fit, first_interval=0.1)

    def _fit_view(self) -> None:
        """Zoom the editors that show the image so that it fills them; later zooming is left alone."""
        if not self._png:
            return
        for window in bpy.context.window_manager.windows:
            for area in window.screen.areas:
                if area.type == "IMAGE_EDITOR" and getattr(area.spaces.active.image, "name", "") == self.name:
                    region = next(region for region in area.regions if region.type == "WINDOW")
                    with bpy.context.temp_override(window=window, area=area, region=region):
                        bpy.ops.image.view_all(fit_view=True)


def _pack(target: Any, png: bytes) -> None:
    # As a packed file, not through `pixels`: Blender treats changed pixels as unsaved work, asks about them on
    # quitting, and takes ten times as long.
    target.pack(data=png, data_len=len(png))
    target.buffers_free()
    target.update()  # otherwise editors keep drawing the old pixels


def _is_empty(space: Any) -> bool:
    return space.image is None and not space.use_image_pin


def _areas(kind: str) -> Iterator[Any]:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == kind:
                yield area


def _spaces() -> Iterator[Any]:
    for area in _areas("IMAGE_EDITOR"):
        yield area.spaces.active


@persistent
def _before_save(*_: Any) -> None:
    """Blender before 4.2 saves every image that an editor shows: remove them until the file is written."""
    _spaces_before_save.clear()
    for image in _images:
        found = bpy.data.images.get(image.name)
        if found is not None and not compat.keep_out_of_files(found):
            _spaces_before_save.extend((space, image) for space in _spaces() if space.image == found)
            bpy.data.images.remove(found)


@persistent
def _after_save(*_: Any) -> None:
    for space, image in _spaces_before_save:
        space.image = image.datablock()
    _spaces_before_save.clear()


_HANDLERS = (("save_pre", _before_save), ("save_post", _after_save))


def register() -> None:
    """Install the handlers that keep the images out of saved files."""
    for event, handler in _HANDLERS:
        getattr(bpy.app.handlers, event).append(handler)


def unregister() -> None:
    """Remove the handlers; the images stay until Blender quits or loads another file."""
    for event, handler in reversed(_HANDLERS):
        getattr(bpy.app.handlers, event).remove(handler)
    _spaces_before_save.clear()
    for image in _images:
        image.forget()
