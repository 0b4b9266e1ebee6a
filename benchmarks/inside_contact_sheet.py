# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender: times the add-on's ticks while the contact sheet of running variations is shown."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import bpy
from tick_stopwatch import cpu_ticks, pause, perform, ticks, timed, until, watch_ticks

ADDON: str  # given by run_installed.py
finish: Callable[[int], None]

MEASURED_S = 15.0
COUNT = int(os.environ["VARIATIONS"])

ticking: Any = importlib.import_module(f"{ADDON}.timer")
bpy.context.preferences.addons[ADDON].preferences.address = os.environ["SERVER"]
session: Any = importlib.import_module(f"{ADDON}.addon_state").session()


def watch() -> None:
    """Put stopwatches around a tick and its parts."""
    watch_ticks(ticking)
    ticking.contact_sheet.follow = timed("sheet", ticking.contact_sheet.follow)
    ticking.thumbnails.update = timed("thumbnail", ticking.thumbnails.update)


def work() -> Iterator[float]:
    """Submit the variations, show their sheet, and measure."""
    if not session.is_open:
        bpy.ops.dreamwright.connect()
    panel = bpy.context.window_manager.dreamwright
    yield from until(session, lambda: session.is_online and bool(panel.model_name), "the connection")
    bpy.ops.dreamwright.generate(prompt="a red mushroom", count=COUNT)
    yield from until(session, lambda: len(next(iter(session.groups().values()), [])) == COUNT, "the variations")
    (group,) = session.groups()
    bpy.ops.dreamwright.toggle_group(group=group)
    ticking.contact_sheet.open_editor(bpy.context, group)
    yield from until(session, lambda: len(session.newest_previews.tiles) == COUNT, "the previews")
    watch()
    yield from pause(MEASURED_S)
    print("REPORT " + json.dumps({"ticks": ticks, "cpu": cpu_ticks}))


perform(work(), ticking, finish)
