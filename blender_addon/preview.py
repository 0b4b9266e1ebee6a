# SPDX-License-Identifier: GPL-3.0-or-later
"""The live preview of the selected job in an Image datablock."""

from __future__ import annotations

from typing import Any

from . import addon_state
from .editor_image import EditorImage
from .preview_history import encode_png
from .shared.messages import PreviewFrame
from .wording import say

IMAGE = "Dreamwright Preview"

_image = EditorImage(IMAGE)
_shown: PreviewFrame | None = None


def show(frame: PreviewFrame) -> None:
    """Put a frame into the image and redraw the editors that show it. Raises ProtocolError."""
    global _shown
    if frame is _shown and _image.exists:
        return
    _image.show(encode_png(frame), (frame.width, frame.height))
    _shown = frame


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
        addon_state.session().notify(say("A preview cannot be shown: {error}", error=error))


def open_editor(context: Any) -> bool:
    """Show the image in an Image Editor, or in a part split off the 3D view; False when neither is possible."""
    return _image.open_editor(context)


def register() -> None:
    """Nothing is made before the first preview."""


def unregister() -> None:
    """Forget the last preview."""
    global _shown
    _shown = None
