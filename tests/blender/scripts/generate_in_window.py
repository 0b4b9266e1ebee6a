# SPDX-License-Identifier: GPL-3.0-or-later
"""At a window: generate, preview, import and undo with mouse and keyboard, with screenshots."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import bpy
from ui_driver import (
    VIEW,
    center,
    click,
    delete_cube,
    editors_with_preview,
    imported_objects,
    open_connected_tab,
    panel,
    perform_connected,
    picture,
    point,
    redo,
    report,
    session,
    show_materials,
    undo,
    until,
    write,
)

finish: Callable[[int], None]  # given by run_installed.py

PROMPT = "a red mushroom"


def red_of_preview() -> float:
    """The red of the preview's first pixel, which the fake server makes rise with the step."""
    image = bpy.data.images.get("Dreamwright Preview")
    return image.pixels[0] if image else 0.0


def show_preview() -> Iterator[float]:
    """Press the button until the editor is there: a list that a row has moved meanwhile swallows a click."""
    for seconds in (10.0, 60.0):
        yield from click("dreamwright.show_preview", upwards=True)
        try:
            yield from until(lambda: bool(editors_with_preview()), "an Image Editor with the preview", seconds)
            return
        except TimeoutError:
            if seconds == 60.0:
                raise


def work() -> Iterator[float]:
    """From an empty tab to a prop in the scene."""
    yield from delete_cube()
    yield from open_connected_tab()
    yield from click(".prompt", as_property=True)
    yield from write(PROMPT, report["places"][".prompt"])
    report["typed"] = panel().prompt
    yield from point(center(VIEW))
    yield from picture("before")

    yield from click("dreamwright.generate()")
    yield from until(lambda: bool(session().jobs), "the job")
    yield from show_preview()
    job = next(iter(session().jobs))
    yield from until(lambda: len(session().previews.get(job, ())) >= 1, "a preview")
    yield from until(lambda: 0 < red_of_preview() < 0.25, "a first preview in the image")
    step_limit = Path(os.environ["STEP_LIMIT"])
    step_limit.write_text("120")
    yield from until(lambda: red_of_preview() > 0.4, "a newer preview in the image")
    report["jobs"] = [one.prompt for one in session().jobs.values()]
    report["state while running"] = session().jobs[job].state
    yield from picture("running")
    step_limit.write_text("250")

    yield from until(lambda: session().jobs[job].state == "succeeded", "the end of the job", 120)
    yield from picture("ready")
    yield from click("dreamwright.import_mesh", upwards=True)
    yield from until(lambda: bool(imported_objects()), "the import")
    made = imported_objects()[0]
    report["object"] = {
        "prompt": made["dreamwright_prompt"],
        "attributes": [attribute.name for attribute in made.data.color_attributes],
        "material": made.data.materials[0].name,
        "selected": made.select_get() and bpy.context.view_layer.objects.active == made,
    }
    yield from show_materials()
    yield from picture("imported")

    yield from undo(lambda: not imported_objects())
    report["after undo"] = {"objects": len(imported_objects()), "jobs": len(session().jobs), "prompt": panel().prompt}
    yield from redo(lambda: bool(imported_objects()))


perform_connected(work(), finish)
