# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender with a window: an artist at work with mouse and keyboard, who takes pictures on the way.

What lies where in the sidebar is found as a person could find it: point at a place, press Ctrl C, and see which button's
command (or Ctrl Alt Shift C: which property's path) is in the clipboard.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bpy

ADDON: str  # given by enter.py
finish: Callable[[int], None]

PICTURES = Path(os.environ["PICTURES"])
PROMPT = "a red mushroom"
MOMENT = 0.04  # between two events, so that Blender handles and draws in between
KEYS = {" ": "SPACE"} | {letter: letter.upper() for letter in "abcdefghijklmnopqrstuvwxyz"}

drawn: set[str] = set()
report: dict[str, Any] = {"pictures": [], "places": {}}


def session() -> Any:
    """The add-on's session: looked at, never touched."""
    return importlib.import_module(f"{ADDON}.live").session()


def note(panel: bpy.types.Panel, _context: bpy.types.Context) -> None:
    """Blender draws this panel."""
    drawn.add(type(panel).__name__)


def window() -> bpy.types.Window:
    """The one window."""
    return bpy.context.window_manager.windows[0]


def area_of(kind: str) -> bpy.types.Area:
    """The largest area of a kind."""
    return max((area for area in window().screen.areas if area.type == kind), key=lambda area: area.width * area.height)


def region_of(kind: str) -> bpy.types.Region:
    """A region of the 3D view."""
    return next(region for region in area_of("VIEW_3D").regions if region.type == kind)


def send(kind: str, value: str, at: tuple[int, int], **more: Any) -> None:
    """One simulated event."""
    window().event_simulate(type=kind, value=value, x=at[0], y=at[1], **more)


def point(at: tuple[int, int]) -> Iterator[float]:
    """Move the mouse."""
    send("MOUSEMOVE", "NOTHING", at)
    yield MOMENT


def press(kind: str, at: tuple[int, int], **more: Any) -> Iterator[float]:
    """A key or button, pressed and let go."""
    yield from point(at)
    send(kind, "PRESS", at, **more)
    yield MOMENT
    send(kind, "RELEASE", at, **{name: held for name, held in more.items() if name != "unicode"})
    yield MOMENT


def until(happened: Callable[[], bool], what: str, seconds: float = 60.0) -> Iterator[float]:
    """Wait as a person waits."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen in {seconds:.0f} s; {[notice.text for notice in session().notices]}")
        yield 0.1


def centre(region: bpy.types.Region) -> tuple[int, int]:
    """The middle of a region."""
    return region.x + region.width // 2, region.y + region.height // 2


def picture(name: str) -> Iterator[float]:
    """Keep what the window shows."""
    yield 0.5
    path = PICTURES / f"{name}.png"
    with bpy.context.temp_override(window=window()):
        bpy.ops.screen.screenshot(filepath=str(path))
    report["pictures"].append(path.name)


def find(wanted: str, as_property: bool = False, upwards: bool = False) -> Iterator[float]:
    """Point at place after place of the sidebar until the wanted button is under the mouse."""
    sidebar = region_of("UI")
    left, top = sidebar.x + int(0.36 * sidebar.width), sidebar.y + sidebar.height
    seen = []
    places = range(12, sidebar.height - 4, 13)
    for below in reversed(places) if upwards else places:
        at = (left, top - below)
        bpy.context.window_manager.clipboard = "nothing"
        yield from press("C", at, ctrl=True, **({"alt": True, "shift": True} if as_property else {}))
        found = bpy.context.window_manager.clipboard
        seen.append(found)
        if wanted in found:
            report["places"][wanted] = at
            return
    raise LookupError(f"{wanted} is nowhere in the sidebar; there are {sorted(set(seen))}")


def click(wanted: str, as_property: bool = False, upwards: bool = False) -> Iterator[float]:
    """Find a button and press it."""
    yield from find(wanted, as_property, upwards)
    yield from press("LEFTMOUSE", report["places"][wanted])


def write(text: str, at: tuple[int, int]) -> Iterator[float]:
    """Type into the field that is being edited, and confirm."""
    for letter in text:
        yield from press(KEYS[letter], at, unicode=letter)
    yield from press("RET", at)


def open_tab() -> Iterator[float]:
    """Press N over the 3D view, then press along the column of tabs until the add-on's panels show."""
    if not area_of("VIEW_3D").spaces.active.show_region_ui:
        yield from press("N", centre(region_of("WINDOW")))
        yield 0.5
    sidebar = region_of("UI")
    for below in range(24, 400, 12):
        if drawn:
            return
        yield from press("LEFTMOUSE", (sidebar.x + sidebar.width - 10, sidebar.y + sidebar.height - below))
        yield 0.15
    raise LookupError("no tab of the sidebar shows the add-on's panels")


def editors_with_preview() -> list[bpy.types.Area]:
    """Image Editors that show the preview."""
    areas = [area for area in window().screen.areas if area.type == "IMAGE_EDITOR"]
    return [area for area in areas if area.spaces.active.image and area.spaces.active.image.name == "Dreamwright Preview"]


def red_of_preview() -> float:
    """The red of the preview's first pixel, which the fake server makes rise with the step."""
    image = bpy.data.images.get("Dreamwright Preview")
    return image.pixels[0] if image else 0.0


def dreamt() -> list[bpy.types.Object]:
    """Objects that the add-on made."""
    return [one for one in bpy.data.objects if "dreamwright_prompt" in one]


def work() -> Iterator[float]:
    """The artist's work, from an empty tab to a prop in the scene."""
    view = centre(region_of("WINDOW"))
    yield 1.0
    yield from press("DEL", view)  # the start-up file's cube, selected already
    yield from open_tab()
    yield from until(lambda: session().is_online and session().offered is not None, "the connection")
    yield from click(".prompt", as_property=True)
    yield from write(PROMPT, report["places"][".prompt"])
    report["typed"] = bpy.context.window_manager.dreamwright.prompt
    yield from point(view)
    yield from picture("1-before")

    yield from click("dreamwright.generate()")
    yield from until(lambda: bool(session().jobs), "the job")
    yield from click("dreamwright.show_preview", upwards=True)
    yield from until(lambda: bool(editors_with_preview()), "an Image Editor with the preview")
    job = next(iter(session().jobs))
    yield from until(lambda: len(session().frames.get(job, ())) >= 3, "three previews")
    first = red_of_preview()
    yield from until(lambda: red_of_preview() > max(first, 0.4), "a newer preview in the image")
    report["jobs"] = [one.prompt for one in session().jobs.values()]
    report["state while dreaming"] = session().jobs[job].state
    yield from picture("2-dreaming")

    yield from until(lambda: session().jobs[job].state == "succeeded", "the end of the job", 120)
    yield from picture("3-ready")
    yield from click("dreamwright.import_mesh", upwards=True)
    yield from until(lambda: bool(dreamt()), "the import")
    made = dreamt()[0]
    report["object"] = {
        "prompt": made["dreamwright_prompt"],
        "attributes": [attribute.name for attribute in made.data.color_attributes],
        "material": made.data.materials[0].name,
        "selected": made.select_get() and bpy.context.view_layer.objects.active == made,
    }
    view = centre(region_of("WINDOW"))
    yield from press("NUMPAD_PERIOD", view)  # look at it
    area_of("VIEW_3D").spaces.active.shading.type = "MATERIAL"
    yield from point(view)
    yield 4.0  # shaders compile
    yield from picture("4-imported")

    yield from press("Z", view, ctrl=True)
    yield from until(lambda: not dreamt(), "the undo")
    report["after undo"] = {"objects": len(dreamt()), "jobs": len(session().jobs), "prompt": bpy.context.window_manager.dreamwright.prompt}
    yield from press("Z", view, ctrl=True, shift=True)
    yield from until(lambda: bool(dreamt()), "the redo")
    yield 0.3


STEPS = work()


def tick() -> float | None:
    """One step of the work; the window closes when it is done."""
    try:
        return next(STEPS)
    except StopIteration:
        report["notices"] = [notice.text for notice in session().notices]
        report["drawn"] = sorted(drawn)
        print("REPORT " + json.dumps(report))
        finish(0)
    except Exception:
        traceback.print_exc()
        with bpy.context.temp_override(window=window()):
            bpy.ops.screen.screenshot(filepath=str(PICTURES / "fault.png"))
        sys.stdout.flush()
        finish(1)
    return None


bpy.context.preferences.addons[ADDON].preferences.address = os.environ["SERVER"]  # it connects there when Blender is up
for name in dir(bpy.types):
    panel = getattr(bpy.types, name)
    if "_PT_" in name and panel.__module__.startswith(ADDON) and getattr(panel, "bl_region_type", "") == "UI":
        panel.append(note)
bpy.app.timers.register(tick, first_interval=0.5)
