# SPDX-License-Identifier: GPL-3.0-or-later
"""At a window: a dreamt prop is finished by the panel's button; its triangles and textures are looked at."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import bpy
import ui_driver
from ui_driver import VIEW, addon, center, click, panel, picture, point, press, report, session, until

finish: Callable[[int], None]  # given by run_installed.py

ADDON: str  # given by run_installed.py
PROMPT, SETTINGS = json.loads(os.environ["PROMPTS"])[0], json.loads(os.environ["SETTINGS"])
PATIENCE_S = float(os.environ["PATIENCE_S"])


def finest() -> Any:
    """LOD0 of the finished asset."""
    return next((one for one in bpy.data.objects if one.name.endswith("_LOD0")), None)


def run() -> Any:
    """The finishing in progress."""
    return addon("finish_operators").current_run()


def work() -> Iterator[float]:
    """Generate, import, finish."""
    yield from ui_driver.delete_cube()
    ui_driver.unfold("finish_panel.DREAMWRIGHT_PT_finish")
    bpy.context.preferences.addons[ADDON].preferences.command = os.environ["COMMAND"]
    yield from ui_driver.open_connected_tab()
    panel().prompt = PROMPT
    panel().settings_text = json.dumps(SETTINGS)
    yield from click("dreamwright.generate()")
    yield from until(lambda: bool(session().jobs), "the job")
    job = next(iter(session().jobs))
    yield from until(lambda: session().jobs[job].state in ("succeeded", "failed"), "its end", PATIENCE_S)
    yield from click("dreamwright.import_mesh", upwards=True)
    yield from until(lambda: bool(ui_driver.imported_objects()), "the import")
    (dense,) = ui_driver.imported_objects()
    report["dense"] = len(dense.data.polygons)
    yield from ui_driver.show_materials()

    yield from click("dreamwright.finish_mesh", upwards=True)
    yield from ui_driver.redrawn()
    yield from picture("dialog")
    started = time.monotonic()
    yield from press("RET", ui_driver.pointer)
    yield from until(lambda: run() is not None, "the command")
    yield from until(lambda: run() is None or run().step in ("bake", "lod", "collision"), "the baking", 300)
    yield from point(center(VIEW))
    yield from picture("progress")
    yield from until(lambda: finest() is not None, "the asset", 600)
    report["seconds"] = round(time.monotonic() - started, 1)
    report["objects"] = sorted(one.name for one in bpy.data.objects if one.type == "MESH")
    report["triangles"] = len(finest().data.polygons)
    dense.hide_set(True)
    yield from press("N", center(VIEW))  # the sidebar away: it lies over the view
    yield from ui_driver.show_materials()
    yield from picture("finished")
    space = ui_driver.area_of("VIEW_3D").spaces.active
    space.overlay.show_wireframes, space.overlay.wireframe_threshold = True, 1.0
    yield from ui_driver.split_view(0.5)
    area = ui_driver.leftmost("VIEW_3D")
    area.type = "IMAGE_EDITOR"
    area.spaces.active.image = next(one for one in bpy.data.images if one.name.startswith(f"{finest().name}_normal"))
    yield from ui_driver.settled()
    yield from press("HOME", center(ui_driver.Place("IMAGE_EDITOR")))
    yield from press("NUMPAD_PERIOD", center(VIEW))
    yield from ui_driver.settled()
    yield from picture("triangles")


ui_driver.perform_connected(work(), finish)
