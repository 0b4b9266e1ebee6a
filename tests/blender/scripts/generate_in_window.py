# SPDX-License-Identifier: GPL-3.0-or-later
"""At a window: generate, preview, import and undo with mouse and keyboard, with screenshots."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import bpy
from ui_driver import (
    VIEW,
    area_of,
    center,
    click,
    dreamt,
    editors_with_preview,
    open_tab,
    panel,
    perform,
    picture,
    point,
    press,
    redrawn,
    report,
    session,
    settled,
    until,
    watch_panels,
    write,
)

ADDON: str  # given by run_installed.py
finish: Callable[[int], None]

PROMPT = "a red mushroom"


def red_of_preview() -> float:
    """The red of the preview's first pixel, which the fake server makes rise with the step."""
    image = bpy.data.images.get("Dreamwright Preview")
    return image.pixels[0] if image else 0.0


def work() -> Iterator[float]:
    """From an empty tab to a prop in the scene."""
    yield from redrawn()
    view = center(VIEW)
    yield from press("DEL", view)  # the start-up file's cube, selected already
    yield from open_tab()
    yield from until(lambda: session().is_online and session().capabilities is not None, "the connection")
    yield from click(".prompt", as_property=True)
    yield from write(PROMPT, report["places"][".prompt"])
    report["typed"] = panel().prompt
    yield from point(view)
    yield from picture("before")

    yield from click("dreamwright.generate()")
    yield from until(lambda: bool(session().jobs), "the job")
    yield from click("dreamwright.show_preview", upwards=True)
    yield from until(lambda: bool(editors_with_preview()), "an Image Editor with the preview")
    job = next(iter(session().jobs))
    yield from until(lambda: len(session().previews.get(job, ())) >= 1, "a preview")
    yield from until(lambda: 0 < red_of_preview() < 0.25, "a first preview in the image")
    step_limit = Path(os.environ["STEP_LIMIT"])
    step_limit.write_text("120")
    yield from until(lambda: red_of_preview() > 0.4, "a newer preview in the image")
    report["jobs"] = [one.prompt for one in session().jobs.values()]
    report["state while dreaming"] = session().jobs[job].state
    yield from picture("dreaming")
    step_limit.write_text("250")

    yield from until(lambda: session().jobs[job].state == "succeeded", "the end of the job", 120)
    yield from picture("ready")
    yield from click("dreamwright.import_mesh", upwards=True)
    yield from until(lambda: bool(dreamt()), "the import")
    made = dreamt()[0]
    report["object"] = {
        "prompt": made["dreamwright_prompt"],
        "attributes": [attribute.name for attribute in made.data.color_attributes],
        "material": made.data.materials[0].name,
        "selected": made.select_get() and bpy.context.view_layer.objects.active == made,
    }
    view = center(VIEW)
    yield from press("NUMPAD_PERIOD", view)  # look at it
    area_of("VIEW_3D").spaces.active.shading.type = "MATERIAL"
    yield from point(view)
    yield from settled()
    yield from picture("imported")

    yield from press("Z", view, ctrl=True)
    yield from until(lambda: not dreamt(), "the undo")
    report["after undo"] = {"objects": len(dreamt()), "jobs": len(session().jobs), "prompt": panel().prompt}
    yield from press("Z", view, ctrl=True, shift=True)
    yield from until(lambda: bool(dreamt()), "the redo")


bpy.context.preferences.addons[ADDON].preferences.address = os.environ["SERVER"]  # it connects there when Blender is up
watch_panels()
perform(work(), finish)
