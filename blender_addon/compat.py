# SPDX-License-Identifier: GPL-3.0-or-later
"""The differences between Blender 3.4 and 5.2; those of meshes and materials are in `datablocks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from .wording import mark, say

_LEGACY_FOLDER = "dreamwright"  # in Blender's data files, for add-ons without a folder of their own

_icons: set[str] = set()


def icon(name: str, fallback: str = "NONE") -> str:
    """An icon's name if this Blender has the icon, else the fallback."""
    if not _icons:
        functions = bpy.types.UILayout.bl_rna.functions
        _icons.update(functions["label"].parameters["icon"].enum_items.keys())
    return name if name in _icons else fallback


def user_folder(package: str) -> Path:
    """The folder in which the add-on may write, created when missing. Raises OSError."""
    # Only extensions have a folder of their own; Blender raises ValueError for other add-ons.
    if package.startswith("bl_ext.") and hasattr(bpy.utils, "extension_path_user"):
        return Path(bpy.utils.extension_path_user(package, path="", create=True))
    found = bpy.utils.user_resource("DATAFILES", path=_LEGACY_FOLDER, create=True)
    if not found:
        raise OSError("Blender has no writable folder for user data")
    return Path(found)


def online_fault(purpose: str = mark("to use a server on another machine")) -> str:
    """Why the network may not be used for a purpose, as a sentence; "" when it may."""
    if getattr(bpy.app, "online_access", True):
        return ""
    if getattr(bpy.app, "online_access_override", False):
        return say("Blender was started offline; start it without --offline-mode {purpose}", purpose=say(purpose))
    return say("Enable online access in the System preferences {purpose}", purpose=say(purpose))


def progress(layout: Any, holder: Any, percent_property: str, fraction: float, text: str) -> None:
    """A progress bar; a disabled slider before 4.0."""
    if hasattr(layout, "progress"):
        layout.progress(factor=fraction, text=text, type="BAR")
    else:
        row = layout.row(align=True)
        row.enabled = False
        row.prop(holder, percent_property, text=text, slider=True)


def text_field(layout: Any, data: Any, name: str, placeholder: str, lines: int) -> bool:
    """A text field; True when it has several lines, from 5.2 on."""
    if hasattr(layout, "textbox"):
        layout.textbox(data, name, initial_visible_lines=lines, placeholder=placeholder)
        return True
    if bpy.app.version >= (4, 1, 0):
        layout.prop(data, name, text="", placeholder=placeholder)
    else:
        layout.prop(data, name, text="")
    return False


def keep_out_of_files(datablock: Any) -> bool:
    """Exclude a datablock from saved files and recovery files; False before 4.2, which cannot."""
    is_supported = hasattr(datablock, "is_runtime_data")
    if is_supported:
        datablock.is_runtime_data = True
    return is_supported


def smooth_color_shader() -> Any:
    """Blender's own shader for colors of vertices in 3D; 4.0 renamed it."""
    import gpu  # of which nothing may be used in the background

    return gpu.shader.from_builtin("SMOOTH_COLOR" if bpy.app.version >= (4, 0, 0) else "3D_SMOOTH_COLOR")


def with_window(context: Any, act: Callable[[], Any]) -> Any:
    """Call `act` with a window in the context, which a timer's context lacks and operators need."""
    windows = context.window_manager.windows
    if context.window is not None or not len(windows) or not hasattr(context, "temp_override"):
        return act()
    with context.temp_override(window=windows[0]):
        return act()


@contextmanager
def numpy_bool() -> Iterator[None]:
    """Let `np.bool` exist in the block: the glTF importer of Debian's 3.4 uses it, and its numpy has it no more."""
    if "bool" in vars(np):
        yield
        return
    vars(np)["bool"] = bool
    try:
        yield
    finally:
        del vars(np)["bool"]


def operator_fault(error: RuntimeError) -> str:
    """What one of Blender's operators says of its failure, in one line: the last of a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Location:")]
    return lines[-1].removeprefix("Error: ") if lines else type(error).__name__
