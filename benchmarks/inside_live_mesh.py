# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender: times the add-on's ticks while a prop grows in the 3D view."""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import bpy
from tick_stopwatch import cpu_ticks, pause, perform, ticks, timed, until, watch_ticks

ADDON: str  # given by run_installed.py
finish: Callable[[int], None]

MEASURED_S = 15.0

ticking: Any = importlib.import_module(f"{ADDON}.timer")
live: Any = importlib.import_module(f"{ADDON}.live_mesh")
bpy.context.preferences.addons[ADDON].preferences.address = os.environ["SERVER"]
session: Any = importlib.import_module(f"{ADDON}.addon_state").session()
drawn: list[float] = []  # milliseconds of CPU


def watch() -> None:
    """Put stopwatches around a tick, the live mesh's part of it, and the drawing, which is outside of it."""
    watch_ticks(ticking)
    live.follow = timed("live mesh", live.follow)
    ticking.preview.show_current = timed("preview", ticking.preview.show_current)
    ticking.thumbnails.update = timed("thumbnail", ticking.thumbnails.update)
    session.tick = timed("session", session.tick)
    draw = live._draw_mesh

    def draw_timed() -> None:
        started = time.thread_time()
        draw()
        drawn.append(1000 * (time.thread_time() - started))

    live._draw_mesh = draw_timed


def work() -> Iterator[float]:
    """Submit a job, watch it, and measure."""
    if not session.is_open:
        bpy.ops.dreamwright.connect()
    panel = bpy.context.window_manager.dreamwright
    yield from until(session, lambda: session.is_online and bool(panel.model_name), "the connection")
    bpy.ops.dreamwright.generate(prompt="a red mushroom")
    yield from until(session, lambda: live.shown() is not None, "the first live mesh", 120)
    assert len(live.shown().corners) == 10_000
    watch()
    yield from pause(MEASURED_S)
    print("REPORT " + json.dumps({"ticks": ticks, "cpu": cpu_ticks, "drawn": drawn}))


perform(work(), ticking, finish)
