# SPDX-License-Identifier: GPL-3.0-or-later
"""At a window: a list in a text becomes assets, which the Asset Browser shows, and one is dragged into the scene."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bpy
import ui_driver
from ui_driver import MOMENT, VIEW, Place, Spot, addon, center, panel, picture, point, press, report, until

finish: Callable[[int], None]  # given by run_installed.py

PROMPTS, SETTINGS = json.loads(os.environ["PROMPTS"]), json.loads(os.environ["SETTINGS"])
PATIENCE_S = float(os.environ["PATIENCE_S"])
BROWSER = Place("FILE_BROWSER")
TILE = Spot(110, 80)  # of the browser's first asset, from the upper left corner of its region


def found() -> Any:
    """The list under way."""
    return addon("active_list").active()


def assets() -> list[Any]:
    """Objects that are assets."""
    return [one for one in bpy.data.objects if one.asset_data is not None]


def show_text(area: Any) -> None:
    """The list in a Text Editor."""
    text = bpy.data.texts.new("props")
    text.write("prompt,tags,catalog\n" + "".join(f"{prompt},,Props\n" for prompt in PROMPTS))
    text.cursor_set(0)
    area.type = "TEXT_EDITOR"
    area.spaces.active.text = text


def drag(start: Spot, end: Spot) -> Iterator[float]:
    """Press, move in small steps, and let go."""
    yield from point(start)
    ui_driver.send("LEFTMOUSE", "PRESS", start)
    yield MOMENT
    for share in (0.02, 0.05, 0.1, 0.3, 0.6, 0.9, 1.0):
        across, up = (round(a + share * (b - a)) for a, b in zip(start[:2], end[:2], strict=True))
        yield from point(Spot(across, up))
        yield 0.1
    ui_driver.send("LEFTMOUSE", "RELEASE", end)
    yield MOMENT


def work() -> Iterator[float]:
    """List, jobs, assets, drop."""
    yield from ui_driver.delete_cube()
    ui_driver.unfold("list_operators.DREAMWRIGHT_PT_list")
    yield from ui_driver.split_view(0.34)
    left = ui_driver.leftmost("VIEW_3D")
    show_text(left)
    yield from ui_driver.redrawn()
    yield from ui_driver.open_connected_tab()
    panel().settings_text = json.dumps(SETTINGS)
    bpy.context.window_manager.dreamwright_list_text = "props"
    yield from ui_driver.find("dreamwright.dream_list()")
    yield from picture("list")
    started = time.monotonic()
    yield from press("LEFTMOUSE", report["places"]["dreamwright.dream_list()"])
    yield from until(lambda: found() is not None and found().done >= min(2, len(PROMPTS) - 1), "two props", PATIENCE_S)
    yield from press("HOME", center(VIEW))
    yield from picture("running")
    yield from until(lambda: found().is_done, "the list", PATIENCE_S)
    report["list"] = {"summary": found().summary(), "seconds": round(time.monotonic() - started, 1)}
    bpy.ops.wm.save_as_mainfile(filepath=str(Path(os.environ["FILES"]) / "props.blend"))
    report["assets"] = sorted(one.name for one in assets())
    left.ui_type = "ASSETS"
    yield from ui_driver.redrawn()
    left.spaces.active.params.asset_library_ref = "LOCAL"
    yield from until(lambda: all(one.preview and any(one.preview.image_pixels[:]) for one in assets()), "thumbnails")
    bpy.ops.object.select_all(action="DESELECT")
    ui_driver.area_of("VIEW_3D").spaces.active.shading.type = "MATERIAL"
    yield from press("HOME", center(VIEW))
    yield from ui_driver.settled()
    yield from picture("assets")

    before = len(bpy.data.objects)
    region = ui_driver.region_of(BROWSER)
    tile, view = Spot(region.x + TILE.x, region.y + region.height - TILE.y), center(VIEW)
    yield from drag(tile, view._replace(y=view.y - 200))
    yield from until(lambda: len(bpy.data.objects) == before + 1, "the drop")
    report["dropped"] = bpy.context.view_layer.objects.active.get("dreamwright_prompt", "")
    yield from ui_driver.settled()
    yield from picture("dropped")


ui_driver.perform_connected(work(), finish)
