# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender: times the add-on's ticks while the contact sheet of running variations is shown."""

from __future__ import annotations

import functools
import importlib
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import bpy

ADDON: str  # given by run_installed.py
finish: Callable[[int], None]

MEASURED_S = 15.0
COUNT = int(os.environ["VARIATIONS"])

ticking: Any = importlib.import_module(f"{ADDON}.timer")
bpy.context.preferences.addons[ADDON].preferences.address = os.environ["SERVER"]
session: Any = importlib.import_module(f"{ADDON}.addon_state").session()

ticks: list[dict[str, float]] = []  # milliseconds, by part
cpu_ticks: list[dict[str, float]] = []  # the same without the time in which other programs ran
parts: dict[str, float] = {}
cpu: dict[str, float] = {}


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its time added to the tick's part of this name."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        started, worked = time.perf_counter(), time.thread_time()
        try:
            return function(*arguments, **options)
        finally:
            parts[name] = parts.get(name, 0.0) + 1000 * (time.perf_counter() - started)
            cpu[name] = cpu.get(name, 0.0) + 1000 * (time.thread_time() - worked)

    return wrapper


def watch() -> None:
    """Put stopwatches around a tick and its parts."""
    tick = timed("tick", ticking.tick)

    def whole() -> None:
        parts.clear()
        cpu.clear()
        tick()
        ticks.append(dict(parts))
        cpu_ticks.append(dict(cpu))

    ticking.tick = whole
    ticking.contact_sheet.follow = timed("sheet", ticking.contact_sheet.follow)
    ticking.thumbnails.update = timed("thumbnail", ticking.thumbnails.update)


def until(happened: Callable[[], bool], what: str, seconds: float = 60.0) -> Iterator[float]:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen in {seconds:.0f} s; {session.reason}; {session.notices}")
        yield 0.05


def work() -> Iterator[float]:
    """Submit the variations, show their sheet, and measure."""
    if not session.is_open:
        bpy.ops.dreamwright.connect()
    panel = bpy.context.window_manager.dreamwright
    yield from until(lambda: session.is_online and bool(panel.model_name), "the connection")
    bpy.ops.dreamwright.generate(prompt="a red mushroom", count=COUNT)
    yield from until(lambda: len(next(iter(session.groups().values()), [])) == COUNT, "the variations")
    (group,) = session.groups()
    bpy.ops.dreamwright.toggle_group(group=group)
    ticking.contact_sheet.open_editor(bpy.context, group)
    yield from until(lambda: len(session.newest_previews.tiles) == COUNT, "the previews")
    watch()
    end = time.monotonic() + MEASURED_S
    while time.monotonic() < end:
        yield 0.05
    print("REPORT " + json.dumps({"ticks": ticks, "cpu": cpu_ticks}))


STEPS = work()


def turn() -> float | None:
    """In a window: one step of the work, beside the add-on's own timer."""
    try:
        return next(STEPS)
    except StopIteration:
        finish(0)
    except Exception:
        traceback.print_exc()
        finish(1)
    return None


def main() -> None:
    """With a window Blender fires the timers; without one they are called as it would."""
    if not bpy.app.background:
        bpy.app.timers.register(turn, first_interval=1.0)
        return
    due = 0.0
    for wait in STEPS:
        end = time.monotonic() + wait
        while time.monotonic() < end:
            if time.monotonic() >= due:
                due = time.monotonic() + ticking._on_timer()
            time.sleep(0.005)


main()
