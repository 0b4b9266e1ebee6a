# SPDX-License-Identifier: GPL-3.0-or-later
"""At a window: a new user's first prop, from the zip in the home folder to the object in the scene.

Everything is clicked and typed as on the page docs/user/first-prop.md, except that the path of the command is pasted,
the preferences are closed by a call (the button is the window manager's), and the test sets $SETTINGS and $ADDRESS.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bpy
import ui_driver
from ui_driver import (
    MOMENT,
    SIDEBAR,
    VIEW,
    Place,
    Spot,
    center,
    click,
    find,
    panel,
    picture,
    point,
    press,
    region_of,
    report,
    session,
    until,
)

ADDON: str  # given by run_installed.py
finish: Callable[[int], None]

ZIP, COMMAND, ADDRESS, PROMPT = (
    Path(os.environ["ZIP"]),
    os.environ["COMMAND"],
    os.environ["ADDRESS"],
    os.environ["PROMPT"],
)
SETTINGS = json.loads(os.environ["SETTINGS"])  # of the server's advanced settings, by name
START_S, JOB_S = 180.0, float(os.environ["JOB_S"])
MOMENTS = {"early": 0.0, "middle": 0.45, "late": 0.85}  # share of the steps, and at least one picture

PREFERENCES, CHAPTERS, FILES = Place("PREFERENCES"), Place("PREFERENCES", "NAVIGATION_BAR"), Place("FILE_BROWSER")
EDITOR, PROPERTIES, WIDER = Place("IMAGE_EDITOR"), Place("PROPERTIES"), 180  # pixels


def preferences() -> Any:
    """The add-on's own."""
    return bpy.context.preferences.addons[ADDON].preferences


def windows() -> int:
    """How many are open."""
    return len(bpy.context.window_manager.windows)


def press_along(
    place: Place, across: float, done: Callable[[], bool], what: str, upwards: bool = False, **more: Any
) -> Iterator[float]:
    """Press down a region until something came of it."""
    for at in ui_driver.spots(place, across, upwards):
        yield from press("LEFTMOUSE", at, **more)
        yield MOMENT
        if done():
            return
    raise LookupError(f"no press in {place} led to {what}")


def install() -> Iterator[float]:
    """Preferences, Add-ons, Install; choose the zip; tick the box; open the entry; choose the command."""
    yield from press("F4", center(VIEW))
    yield from press("P", center(VIEW))  # Preferences...
    yield from until(lambda: windows() == 2, "the preferences' window")
    yield from press_along(CHAPTERS, 0.5, lambda: bpy.context.preferences.active_section == "ADDONS", "the add-ons")
    yield from click("preferences.addon_install", place=PREFERENCES, across=0.68)
    yield from until(lambda: windows() == 3 and bool(ui_driver.editors("FILE_BROWSER")), "the file browser")
    params = ui_driver.area_of("FILE_BROWSER").spaces.active.params
    yield from press_along(FILES, 0.1, lambda: params.filename == ZIP.name, f"the choice of {ZIP.name}")
    yield from picture("install", windows() - 1)
    yield from press("RET", center(FILES))
    yield from until(
        lambda: windows() == 2 and bpy.context.window_manager.addon_search == "Dreamwright", "the installation"
    )
    yield from click("preferences.addon_enable", place=PREFERENCES, across=0.085)
    yield from until(lambda: ADDON in bpy.context.preferences.addons, "the add-on")
    preferences().address = ADDRESS  # before the add-on looks for a server
    yield from click("preferences.addon_expand", place=PREFERENCES, across=0.043)
    yield from find("buttons.file_browse", place=PREFERENCES, across=0.92)  # beside the field of the command
    button = report["places"]["buttons.file_browse"]
    at = Spot(button.x - 60, button.y, button.window)
    yield from press("LEFTMOUSE", at)
    bpy.context.window_manager.clipboard = COMMAND
    yield from press("V", at, ctrl=True)
    yield from press("RET", at)
    report["command"] = preferences().command
    yield from point(Spot(at.x, 8, at.window))
    yield from picture("preferences", windows() - 1)
    with bpy.context.temp_override(window=bpy.context.window_manager.windows[1]):
        bpy.ops.wm.window_close()
    yield from until(lambda: windows() == 1, "the closing of the preferences")


def start_server() -> Iterator[float]:
    """The tab, and its one button."""
    yield from press("DEL", center(VIEW))  # the start-up file's cube, selected already
    ui_driver.watch_panels()
    yield from ui_driver.open_tab()
    yield from find("dreamwright.start_server")
    report["before"] = list(
        ui_driver.addon("labels").connection_text(session().connection_state, session().reason, True, False, "")[1:]
    )
    yield from picture("start")
    started = time.monotonic()
    yield from press("LEFTMOUSE", report["places"]["dreamwright.start_server"])
    yield from until(lambda: session().is_online and session().capabilities is not None, "the server", START_S)
    report["server_s"] = round(time.monotonic() - started, 1)


def submit() -> Iterator[float]:
    """Prompt, preset, Generate."""
    yield from click(".prompt", as_property=True)
    yield from ui_driver.write(PROMPT, report["places"][".prompt"])
    report["typed"] = panel().prompt
    for preset in ("standard", "draft"):  # there and back: draft is what a server without a GPU suggests
        yield from click(".preset", as_property=True, place=SIDEBAR, across=0.7)
        yield from press(preset[0].upper(), report["places"][".preset"])  # its letter in the menu
        yield from until(lambda chosen=preset: panel().preset_name == chosen, f"the choice of {preset}")
    panel().settings_text = json.dumps(SETTINGS)
    yield from find("dreamwright.generate()")
    yield from picture("prompt")
    yield from press("LEFTMOUSE", report["places"]["dreamwright.generate()"])
    report["submitted_s"] = time.monotonic()
    yield from until(lambda: bool(session().jobs), "the job")
    report["submitted"] = [job().prompt, job().model, job().preset]


def job() -> Any:
    """The one job."""
    return next(iter(session().jobs.values()))


def ended() -> bool:
    """Whether the job is over."""
    return job().state in ("succeeded", "failed", "cancelled")


def watch() -> Iterator[float]:
    """The preview in an Image Editor while the prop grows."""
    yield from click("dreamwright.show_preview", upwards=True)
    yield from until(lambda: bool(ui_driver.editors_with_preview()), "an Image Editor with the preview")
    report["moments"] = []
    for name, share in MOMENTS.items():

        def is_reached(share: float = share) -> bool:
            running = job()
            has_preview = bool(session().previews.get(running.job))
            return ended() or (running.step >= share * running.steps and running.eta_s >= 0 and has_preview)

        yield from until(is_reached, f"the {name} moment", JOB_S)
        ring = session().previews.get(job().job)
        report["moments"].append(
            {"name": name, "state": job().state, "step": job().step, "pictures": len(ring) if ring else 0}
        )
        yield from point(center(EDITOR)._replace(y=region_of(EDITOR).y + 60))  # not over the preview
        yield from picture(name)
    yield from until(ended, "the end of the job", JOB_S)
    report["job"] = [job().state, job().message, job().step, job().elapsed_s]
    report["job_s"] = round(time.monotonic() - report.pop("submitted_s"), 1)


def import_prop() -> Iterator[float]:
    """Import, and look at it."""
    yield from find("dreamwright.import_mesh", upwards=True)
    yield from picture("ready")
    yield from press("LEFTMOUSE", report["places"]["dreamwright.import_mesh"])
    yield from until(lambda: bool(ui_driver.imported_objects()), "the import")
    yield from widen_properties()
    yield from press("HOME", center(EDITOR))  # its editor became narrower
    yield from press("N", center(VIEW))  # the sidebar away: it lies over the view
    yield from press("NUMPAD_PERIOD", center(VIEW))
    yield from press("Z", center(VIEW))
    yield from press("TWO", center(VIEW))  # Material Preview
    yield from until(lambda: ui_driver.area_of("VIEW_3D").spaces.active.shading.type == "MATERIAL", "Material Preview")
    shown: list[bool] = []
    bpy.types.OBJECT_PT_custom_props.append(lambda *_: shown.append(True))
    yield from press_along(PROPERTIES, 0.5, lambda: bool(shown), "the custom properties", upwards=True, ctrl=True)
    yield from point(center(VIEW))
    yield from ui_driver.settled()
    made = ui_driver.imported_objects()[0]
    report["object"] = {
        "prompt": made["dreamwright_prompt"],
        "height": made.dimensions.z,
        "triangles": len(made.data.polygons),
    }
    yield from picture("prop")


def widen_properties() -> Iterator[float]:
    """Pull the left border of the Properties editor: it is too narrow for the names of custom properties."""
    area = ui_driver.area_of("PROPERTIES")
    border, width = Spot(area.x - 1, area.y + area.height // 2), area.width
    yield from point(border)
    ui_driver.send("LEFTMOUSE", "PRESS", border)
    yield MOMENT
    for left in (40, 120, WIDER):
        yield from point(border._replace(x=border.x - left))
    ui_driver.send("LEFTMOUSE", "RELEASE", border._replace(x=border.x - WIDER))
    yield from until(
        lambda: ui_driver.area_of("PROPERTIES").width > width + WIDER // 2, "a wider Properties editor", 10
    )


def stop_server() -> Iterator[float]:
    """Leave nothing running."""
    yield from press("N", center(VIEW))
    yield from click("dreamwright.stop_server")
    yield from until(lambda: not ui_driver.addon("local_server").is_running(), "the end of the server")
    report["open at the end"] = session().is_open


def work() -> Iterator[float]:
    """The sequence of the page."""
    yield from ui_driver.redrawn()
    report["seconds"] = {}
    report["blender"] = bpy.app.version_string
    for part in (install, start_server, submit, watch, import_prop, stop_server):
        started = time.monotonic()
        yield from part()
        report["seconds"][part.__name__] = round(time.monotonic() - started, 1)


ui_driver.perform(work(), finish)
