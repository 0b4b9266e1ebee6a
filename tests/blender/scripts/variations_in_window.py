# SPDX-License-Identifier: GPL-3.0-or-later
"""At a window: four variations, their contact sheet, one picked by its number, imported, and the others discarded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import bpy
import ui_driver
from ui_driver import (
    MOMENT,
    VIEW,
    addon,
    center,
    click,
    delete_cube,
    editors,
    imported_objects,
    open_connected_tab,
    panel,
    perform_connected,
    picture,
    point,
    press,
    redo,
    report,
    session,
    undo,
    until,
)

finish: Callable[[int], None]  # given by run_installed.py

PROMPT = json.loads(os.environ.get("PROMPTS", '["a red mushroom"]'))[0]
SETTINGS, PATIENCE_S = os.environ.get("SETTINGS", "{}"), float(os.environ.get("PATIENCE_S", "120"))
EDGE = 0.78  # of the sidebar's width, where a row's last small button is


def members() -> list[Any]:
    """The jobs of the one group."""
    return next(iter(session().groups().values()), [])


def number_of_pick() -> int:
    """The picked variation's number in the contact sheet."""
    ((group, job),) = session().picked.items()
    return [one.job for one in session().groups()[group]].index(job) + 1


def shows_sheet() -> bool:
    """Whether an Image Editor shows the contact sheet."""
    images = [area.spaces.active.image for _, area in editors("IMAGE_EDITOR")]
    return any(image is not None and image.name == "Dreamwright Contact Sheet" for image in images)


def work() -> Iterator[float]:
    """From the number beside the button to a single job."""
    yield from delete_cube()
    yield from open_connected_tab()
    panel().prompt, panel().settings_text = PROMPT, SETTINGS
    panel().variations = 4
    report["typed"] = panel().variations
    yield from point(center(VIEW))
    yield from click("dreamwright.generate()")
    yield from until(lambda: len(members()) == 4, "the variations")
    report["jobs"] = len(session().jobs)
    yield from click("dreamwright.show_contact_sheet", upwards=True, across=EDGE)
    yield from until(shows_sheet, "an Image Editor with the contact sheet")
    yield from until(lambda: all(job.state == "succeeded" for job in members()), "their end", PATIENCE_S)
    newest = session().newest_previews
    yield from until(lambda: len(newest.tiles) == 4 and not newest.is_busy, "the thumbnails")
    yield from until(lambda: addon("thumbnails").count() == 4, "their icons")
    yield from point(center(VIEW))
    yield from picture("sheet")
    bpy.ops.dreamwright.toggle_group()
    yield from until(lambda: len(panel().job_rows) == 5, "the opened list")
    yield from point(center(VIEW))
    yield from picture("opened")

    yield from click("dreamwright.pick_in_sheet", upwards=True, across=0.66)
    area = next(area for _, area in editors("IMAGE_EDITOR"))
    region = next(region for region in area.regions if region.type == "WINDOW")
    corner = region.view2d.view_to_region(0.75, 0.75)  # the tile at the top right
    yield from press("LEFTMOUSE", ui_driver.Spot(region.x + corner[0], region.y + corner[1]))
    yield from until(lambda: bool(session().picked), "the pick by a click")
    report["clicked"] = number_of_pick()

    yield from click("dreamwright.pick_variation", upwards=True, across=0.2)  # the lower row begins with the third
    yield from until(lambda: number_of_pick() != report["clicked"], "the pick")
    report["picked"] = number_of_pick()
    for _ in range(30):  # the sheet follows some moments later
        yield MOMENT
    yield from point(center(VIEW))
    yield from picture("picked")

    yield from click("dreamwright.import_picked", upwards=True)
    yield from until(lambda: bool(imported_objects()), "the import")
    report["imported"] = len(imported_objects())
    yield from undo(lambda: not imported_objects())
    yield from until(shows_sheet, "the contact sheet again, which the undo removed")
    yield from redo(lambda: bool(imported_objects()))
    yield from click("dreamwright.dismiss_notices")  # they take the room of the buttons below
    yield from until(lambda: not session().notices, "the dismissal")
    yield from point(center(VIEW))
    for _ in range(20):  # the buttons move up when the panel is drawn without the message
        yield MOMENT
    yield from click("dreamwright.discard_others", upwards=True, across=0.7)
    for _ in range(20):  # the question is drawn, and takes its keys, some moments later
        yield MOMENT
    yield from press("RET", ui_driver.pointer)
    yield from until(lambda: len(session().jobs) == 1, "the discarding")
    report["left"] = len(session().jobs)
    yield from point(center(VIEW))
    yield from picture("imported")


perform_connected(work(), finish)
