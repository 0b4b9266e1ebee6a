# SPDX-License-Identifier: GPL-3.0-or-later
"""At a window: Export to FBX opens a file dialog with the asset's name, in local view too, and its button writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import bpy
import ui_driver
from ui_driver import VIEW, area_of, center, click, press, report, until

finish: Callable[[int], None]  # given by run_installed.py


def directory() -> bytes:
    """The folder that the dialog shows; empty until there is a dialog."""
    params = ui_driver.editors("FILE_BROWSER")[0][1].spaces.active.params if ui_driver.editors("FILE_BROWSER") else None
    return bytes(params.directory) if params is not None else b""


def work() -> Iterator[float]:
    """The default cube is the only level of a finished collection."""
    yield from ui_driver.redrawn()
    cube = bpy.data.objects["Cube"]
    cube["dreamwright_level"] = 0
    cube.users_collection[0]["dreamwright_finished"] = "Mug"
    yield from press("NUMPAD_SLASH", center(VIEW))
    report["local view"] = area_of("VIEW_3D").spaces.active.local_view is not None
    ui_driver.unfold("finish_panel.DREAMWRIGHT_PT_finish")
    ui_driver.watch_panels()
    yield from ui_driver.open_tab()
    for _ in range(30):  # the panel is below the others
        yield from press("WHEELDOWNMOUSE", center(ui_driver.SIDEBAR))
    yield from click("dreamwright.export_finished", upwards=True)
    yield from until(lambda: bool(directory()), "the dialog")
    yield from ui_driver.redrawn()
    report["name"] = ui_driver.editors("FILE_BROWSER")[0][1].spaces.active.params.filename
    target = Path(directory().decode()) / report["name"]
    report["in home"] = target.parent == Path.home()
    yield from press("RET", center(ui_driver.Place("FILE_BROWSER")))
    yield from until(target.is_file, "the file")
    report["holds the level"] = b"Mug_LOD0" in target.read_bytes()
    report["objects"] = sorted(one.name for one in bpy.data.objects)


ui_driver.perform(work(), finish)
