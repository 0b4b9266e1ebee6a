# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender, with or without a window: previews stream, the file is saved, and Blender quits in mid-stream."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bpy
from ui_driver import until

ADDON: str  # given by run_installed.py
finish: Callable[[int], None]

IMAGE = "Dreamwright Preview"
FILE = Path(os.environ["FILE"])
WINDOW = not bpy.app.background

ticking: Any = importlib.import_module(f"{ADDON}.timer")
session: Any = importlib.import_module(f"{ADDON}.addon_state").session()
turns: list[float] = []  # of Blender's, after it was asked to quit
report: dict[str, Any] = {"before": bpy.data.is_dirty}


def editors() -> list[Any]:
    """The Image Editors that show the preview."""
    areas = [
        area
        for window in bpy.context.window_manager.windows
        for area in window.screen.areas
        if area.type == "IMAGE_EDITOR"
    ]
    return [area for area in areas if area.spaces.active.image and area.spaces.active.image.name == IMAGE]


def red() -> float:
    """The red of the preview, which the fake server makes rise with the step; -1 without a preview."""
    image = bpy.data.images.get(IMAGE)
    return image.pixels[0] if image else -1.0


def marks() -> dict[str, Any]:
    """What would make Blender ask before it quits, or keep the image in the file for good."""
    image = bpy.data.images[IMAGE]
    return {"file": bpy.data.is_dirty, "image": image.is_dirty, "kept": image.use_fake_user}


def work() -> Iterator[float]:
    """Watch, save, watch on, quit."""
    if not WINDOW:  # with one it connects by itself
        bpy.ops.dreamwright.connect()
    yield from until(lambda: session.is_online and session.capabilities is not None, "the connection")
    bpy.ops.dreamwright.generate(prompt="a red mushroom")
    yield from until(lambda: bool(session.jobs), "the job")
    window = bpy.context.window_manager.windows[0]
    if not WINDOW:  # the module has one that nobody sees, and cannot split its areas
        max(window.screen.areas, key=lambda area: area.width).type = "IMAGE_EDITOR"
    with bpy.context.temp_override(window=window):
        bpy.ops.dreamwright.show_preview()
    yield from until(lambda: red() > 0, "a preview")
    yield 0.5
    report["while it streams"] = marks()
    bpy.ops.wm.save_as_mainfile(filepath=str(FILE), compress=False)
    copy = str(shutil.copy(FILE, FILE.with_name("copy.blend")))  # Blender reads no library from the file that is open
    with bpy.data.libraries.load(copy) as (inside, _):
        report["images in the file"] = list(inside.images)
    report["shown after saving"] = len(editors())
    report["jobs after saving"] = len(session.jobs)
    shown = red()
    yield from until(lambda: red() > shown, "a newer preview after saving")
    report["after saving"] = marks()
    report["state at the end"] = next(iter(session.jobs.values())).state
    print("REPORT " + json.dumps(report), flush=True)


def ask_to_quit() -> None:
    """Close the window, where Blender would ask about unsaved work and wait for an answer."""
    bpy.app.timers.register(still_here, first_interval=1)
    with bpy.context.temp_override(window=bpy.context.window_manager.windows[0]):
        bpy.ops.wm.quit_blender("INVOKE_DEFAULT")


def still_here() -> float | None:
    """Blender has not quit, though it had its turn many times."""
    turns.append(time.monotonic())
    if len(turns) < 12:
        return 1.0
    print(
        "ASKED before quitting",
        {"file": bpy.data.is_dirty, "images": [one.name for one in bpy.data.images if one.is_dirty]},
        flush=True,
    )
    finish(1)
    return None


bpy.context.preferences.addons[ADDON].preferences.address = os.environ["SERVER"]
STEPS = work()


def tick() -> float | None:
    """One step; with a window Blender's own timer ticks the add-on."""
    try:
        return next(STEPS)
    except StopIteration:
        ask_to_quit()
    except Exception:
        traceback.print_exc()
        finish(1)
    return None


if WINDOW:
    bpy.app.timers.register(tick, first_interval=1.0)
else:
    for wait in STEPS:
        ticking.poll(timeout_s=wait)
