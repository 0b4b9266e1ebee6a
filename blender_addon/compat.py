# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Blender 3.4 to 5.2 differ, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

_LEGACY_FOLDER = "dreamwright"  # below Blender's own datafiles, where an add-on has no folder of its own

_icons: set[str] = set()


def icon(name: str, fallback: str = "NONE") -> str:
    """An icon's name if this Blender has it."""
    if not _icons:
        functions = bpy.types.UILayout.bl_rna.functions
        _icons.update(functions["label"].parameters["icon"].enum_items.keys())
    return name if name in _icons else fallback


def user_folder(package: str) -> Path:
    """The folder that the add-on may write to, made when missing. Raises OSError."""
    # Only what is installed as an extension has a folder of its own, and Blender raises ValueError for anything else.
    if package.startswith("bl_ext.") and hasattr(bpy.utils, "extension_path_user"):
        return Path(bpy.utils.extension_path_user(package, path="", create=True))
    found = bpy.utils.user_resource("DATAFILES", path=_LEGACY_FOLDER, create=True)
    if not found:
        raise OSError("Blender has no folder for user data that can be written")
    return Path(found)


def online_fault() -> str:
    """Why the network may not be used, in a sentence; "" when it may."""
    if getattr(bpy.app, "online_access", True):
        return ""
    if getattr(bpy.app, "online_access_override", False):
        return "Blender was started offline; launch it without --offline-mode to use a server on another machine"
    return "Enable online access in the System preferences to use a server on another machine"


def progress(layout: Any, holder: Any, percent_property: str, share: float, text: str) -> None:
    """A progress bar; before 4.0 a slider that cannot be moved."""
    if hasattr(layout, "progress"):
        layout.progress(factor=share, text=text, type="BAR")
    else:
        row = layout.row(align=True)
        row.enabled = False
        row.prop(holder, percent_property, text=text, slider=True)


def text_field(layout: Any, data: Any, name: str, placeholder: str, lines: int) -> bool:
    """A text field, of several lines where Blender can; says whether it can."""
    if hasattr(layout, "textbox"):
        layout.textbox(data, name, initial_visible_lines=lines, placeholder=placeholder)
        return True
    if bpy.app.version >= (4, 1, 0):
        layout.prop(data, name, text="", placeholder=placeholder)
    else:
        layout.prop(data, name, text="")
    return False


def keep_out_of_files(datablock: Any) -> bool:
    """Have a datablock left out of saved files and recovery files alike; False before 4.2, where Blender cannot."""
    able = hasattr(datablock, "is_runtime_data")
    if able:
        datablock.is_runtime_data = True
    return able


def use_nodes(owner: Any) -> None:
    """Give a material a node tree; from 5.0 on it always has one, and asking warns."""
    if bpy.app.version < (5, 0, 0):
        owner.use_nodes = True


def with_window(context: Any, act: Callable[[], Any]) -> Any:
    """Run `act` with a window in the context, which a timer's context lacks, so that operators find their scene."""
    windows = context.window_manager.windows
    if context.window is not None or not len(windows) or not hasattr(context, "temp_override"):
        return act()
    with context.temp_override(window=windows[0]):
        return act()
