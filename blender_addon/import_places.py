# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an import was asked for, and when Blender can take it: scene, open file, modes, render, and length units."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import bpy
from bpy.app.handlers import persistent

from .wording import say

_file_number = 0  # of the files that were opened in this Blender
_left_path = ""  # of the file before, while another is loaded


@dataclass(frozen=True)
class Place:
    """A scene of an open file. `scene_id`: holds while the scene is renamed; the name before 4.2, which has none."""

    file_number: int
    scene: str
    scene_id: Any

    @property
    def is_open(self) -> bool:
        """Whether the file is still the one that is open; also after it was loaded again."""
        return self.file_number == _file_number


def here() -> Place:
    """The scene of the window in which an operator runs; without one, that of the first window."""
    context = bpy.context
    windows = context.window_manager.windows
    window = context.window or (windows[0] if len(windows) else None)
    scene = window.scene if window is not None else context.scene
    return Place(_file_number, scene.name, _id_of(scene))


def _id_of(scene: Any) -> Any:
    return getattr(scene, "session_uid", scene.name)


def scene_of(place: Place | None) -> Any:
    """The scene of a place; None when it has gone."""
    if place is None or not place.is_open:
        return None
    same = next((one for one in bpy.data.scenes if _id_of(one) == place.scene_id), None)
    return same or bpy.data.scenes.get(place.scene)  # a file that was loaded again has other ids


@dataclass(frozen=True)
class Stage:
    """The scene and the view layer that an import changes, named as in Blender's context.

    Not an override of the context: Blender 4.5 takes an override of the view layer and not that of the scene.
    """

    scene: Any
    view_layer: Any

    @property
    def collection(self) -> Any:
        """The active collection of the view layer."""
        active = self.view_layer.active_layer_collection
        return active.collection if active is not None else None

    @property
    def window_manager(self) -> Any:
        """The window manager, with all windows."""
        return bpy.context.window_manager

    @property
    def is_shown(self) -> bool:
        """Whether the window of Blender's context shows it."""
        window = bpy.context.window
        return window is None or window.view_layer == self.view_layer

    def evaluated_depsgraph_get(self) -> Any:
        """The evaluated scene."""
        if self.is_shown:
            return bpy.context.evaluated_depsgraph_get()
        self.view_layer.update()
        return self.view_layer.depsgraph


def stage_here() -> Stage:
    """The stage of Blender's context."""
    return Stage(bpy.context.scene, bpy.context.view_layer)


def is_shown(place: Place | None) -> bool:
    """Whether a window shows the place's scene."""
    scene = scene_of(place)
    return any(window.scene == scene for window in bpy.context.window_manager.windows)


@contextmanager
def entered(place: Place | None) -> Iterator[tuple[Stage, str]]:
    """The stage of a place, with a window in Blender's context, one that shows the place's scene where there is one.

    Beside it stands a clause about the scene for the user; "" when it is shown.
    """
    scene, clause = scene_of(place), ""
    windows = list(bpy.context.window_manager.windows)
    window = next((one for one in windows if one.scene == scene), None)
    if window is None and scene is not None:
        clause = say("it is in the scene “{name}”, where it was asked for", name=scene.name)
    elif window is None and windows and place is not None and place.is_open:
        clause = say(
            "it is in the scene “{scene}”, as “{gone}” has gone", scene=windows[0].scene.name, gone=place.scene
        )
    chosen = window or (windows[0] if windows else None)
    with bpy.context.temp_override(window=chosen) if chosen is not None else nullcontext():
        is_hidden = window is None and scene is not None
        yield Stage(scene, scene.view_layers[0]) if is_hidden else stage_here(), clause


def delay() -> str:
    """What an import that comes by itself waits for, after "when"; "" when nothing is in its way."""
    if bpy.app.is_job_running("RENDER"):
        return say("the render has ended")  # which reads the data that an import changes
    for window in bpy.context.window_manager.windows:
        active = window.view_layer.objects.active
        if active is not None and active.mode != "OBJECT":
            return say("you return to Object Mode")
    return ""


def units_per_meter(scene: Any) -> float:
    """Blender's units in a meter: 1 / unit scale; 1 in a scene without units."""
    units = scene.unit_settings
    return 1.0 if units.system == "NONE" else 1.0 / float(units.scale_length)


@persistent
def _before_load(*_: Any) -> None:
    global _left_path
    _left_path = bpy.data.filepath


@persistent
def _after_load(*_: Any) -> None:
    global _file_number
    if not bpy.data.filepath or bpy.data.filepath != _left_path:
        _file_number += 1


def register() -> None:
    """Count the files that are opened."""
    bpy.app.handlers.load_pre.append(_before_load)
    bpy.app.handlers.load_post.append(_after_load)


def unregister() -> None:
    """Stop counting."""
    for handlers, function in ((bpy.app.handlers.load_pre, _before_load), (bpy.app.handlers.load_post, _after_load)):
        if function in handlers:
            handlers.remove(function)
