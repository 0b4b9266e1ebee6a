# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender with a window: finds the add-on's tab in the 3D view with the mouse, and closes the window."""

from __future__ import annotations

import importlib
import json
import os
import traceback
from collections.abc import Callable

import bpy

ADDON: str  # given by run_installed.py
finish: Callable[[int], None]
drawn: set[str] = set()
polled: set[str] = set()  # operators whose `poll` Blender called for a button of the panel
clicks: list[int] = list(range(24, 400, 12))  # pixels below the sidebar's top; a tab is some 40 high


def panels() -> list[type]:
    """The add-on's panels in the sidebar."""
    known = (getattr(bpy.types, name) for name in dir(bpy.types) if "_PT_" in name)
    return [
        panel for panel in known if panel.__module__.startswith(ADDON) and getattr(panel, "bl_region_type", "") == "UI"
    ]


def note(panel: bpy.types.Panel, _context: bpy.types.Context) -> None:
    """Blender draws this panel."""
    drawn.add(type(panel).__name__)


def listen(kind: type) -> None:
    """Record when Blender polls an operator for a button in the panel, which the context shows."""
    answer = kind.poll.__func__

    def poll(cls: type, context: bpy.types.Context) -> bool:
        if hasattr(context, "dreamwright_panel"):
            polled.add(cls.bl_idname)
        return answer(cls, context)

    kind.poll = classmethod(poll)


def end(window: bpy.types.Window) -> None:
    """Take a screenshot, report, and close the window."""
    with bpy.context.temp_override(window=window):
        bpy.ops.screen.screenshot(filepath=os.environ["SCREENSHOT"])
    print(
        "REPORT "
        + json.dumps(
            {"drawn": sorted(drawn), "panels": [panel.__name__ for panel in panels()], "polled": sorted(polled)}
        )
    )
    finish(0)


def tick() -> float | None:
    """Press along the column of tabs, one place per tick so that Blender draws, until the add-on's panels show."""
    try:
        window = bpy.context.window_manager.windows[0]
        area = next(area for area in window.screen.areas if area.type == "VIEW_3D")
        if drawn or not clicks:
            end(window)
            return None
        sidebar = next(region for region in area.regions if region.type == "UI")
        if not area.spaces.active.show_region_ui:
            area.spaces.active.show_region_ui = True
            return 0.5
        place = {"x": sidebar.x + sidebar.width - 10, "y": sidebar.y + sidebar.height - clicks.pop(0)}
        for kind, value in (("MOUSEMOVE", "NOTHING"), ("LEFTMOUSE", "PRESS"), ("LEFTMOUSE", "RELEASE")):
            window.event_simulate(type=kind, value=value, **place)
        return 0.2
    except Exception:
        traceback.print_exc()
        finish(1)
        return None


for verb in ("cancel", "pause", "resume", "delete_job"):
    module = importlib.import_module(f"{ADDON}.{'queue_operators' if verb == 'delete_job' else 'job_operators'}")
    listen(getattr(module, f"DREAMWRIGHT_OT_{verb}"))
for listed in panels():
    listed.append(note)
bpy.app.timers.register(tick, first_interval=0.5)
