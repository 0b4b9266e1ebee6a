# SPDX-License-Identifier: GPL-3.0-or-later
"""Drives a window of Blender with simulated mouse and keyboard events, and takes screenshots.

Buttons are found as a user could find them: point at a place, press Ctrl C, and read the button's command (Ctrl Alt
Shift C: its property's path) from the clipboard. Steps that take time are generators of the seconds to wait;
`perform` runs one on Blender's timers, so that Blender handles events and draws in between.
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
from typing import Any, NamedTuple

import bpy  # isort: skip
import addon_utils  # isort: skip  (importable only after bpy)

MOMENT = 0.01  # between two events, so that Blender handles the first and draws
PATIENCE = float(os.environ.get("DREAMWRIGHT_TEST_PATIENCE", "1"))  # how many times slower than usual the machine is
KEYS = {" ": "SPACE", "/": "SLASH", ".": "PERIOD", "-": "MINUS"} | {
    character: character.upper() for character in "abcdefghijklmnopqrstuvwxyz"
}

drawn: set[str] = set()  # the add-on's panels that Blender has drawn
report: dict[str, Any] = {"pictures": [], "pointers": {}, "places": {}}


class Spot(NamedTuple):
    """A place in a window, in pixels from its lower left corner."""

    x: int
    y: int
    window: int = 0


class Place(NamedTuple):
    """A region of an editor, looked up each time: opening and closing editors replaces regions."""

    area: str
    region: str = "WINDOW"


VIEW, SIDEBAR = Place("VIEW_3D"), Place("VIEW_3D", "UI")
pointer = Spot(0, 0)  # where the mouse is


def addon(module: str) -> Any:
    """A module of the add-on: looked at, never touched."""
    return importlib.import_module(f"{os.environ['DREAMWRIGHT_TEST_ADDON']}.{module}")


def session() -> Any:
    """The add-on's session."""
    return addon("addon_state").session()


def panel() -> Any:
    """What the person typed and chose in the add-on's tab."""
    return bpy.context.window_manager.dreamwright


def editors(kind: str) -> list[tuple[int, Any]]:
    """The editors of a kind with their window's number, largest first."""
    windows = enumerate(bpy.context.window_manager.windows)
    found = [(number, area) for number, window in windows for area in window.screen.areas if area.type == kind]
    return sorted(found, key=lambda pair: -pair[1].width * pair[1].height)


def area_of(kind: str) -> Any:
    """The largest editor of a kind."""
    return editors(kind)[0][1]


def region_of(place: Place) -> Any:
    """The region at a place."""
    return next(region for region in area_of(place.area).regions if region.type == place.region)


def center(place: Place) -> Spot:
    """The middle of a region."""
    region = region_of(place)
    return Spot(region.x + region.width // 2, region.y + region.height // 2, editors(place.area)[0][0])


# --- mouse and keys


def send(kind: str, value: str, at: Spot, **more: Any) -> None:
    """One simulated event."""
    global pointer
    pointer = at
    bpy.context.window_manager.windows[at.window].event_simulate(type=kind, value=value, x=at.x, y=at.y, **more)


def point(at: Spot) -> Iterator[float]:
    """Move the mouse."""
    send("MOUSEMOVE", "NOTHING", at)
    yield MOMENT


def press(kind: str, at: Spot, **more: Any) -> Iterator[float]:
    """A key or button, pressed and let go."""
    yield from point(at)
    send(kind, "PRESS", at, **more)
    yield MOMENT
    if at.window < len(bpy.context.window_manager.windows):  # a press may close its window
        send(kind, "RELEASE", at, **{name: held for name, held in more.items() if name != "unicode"})
    yield MOMENT


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> Iterator[float]:
    """Wait as a person waits."""
    end = time.monotonic() + seconds * PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen in {seconds * PATIENCE:.0f} s; {notices()}")
        yield 0.05


def notices() -> list[str]:
    """The messages of the add-on, once it is enabled."""
    enabled = os.environ["DREAMWRIGHT_TEST_ADDON"] in bpy.context.preferences.addons
    return [session().reason, *(notice.text for notice in session().notices)] if enabled else []


def spots(place: Place, across: float, upwards: bool = False) -> list[Spot]:
    """Spots in a region, closer than a button's height, at a share of its width: upwards, or down from the mouse."""
    region, number = region_of(place), editors(place.area)[0][0]
    column = region.x + int(across * region.width)
    found = [Spot(column, row, number) for row in range(region.y + 4, region.y + region.height - 8, 17)]
    if upwards:
        return found
    is_inside = pointer.window == number and region.x <= pointer.x < region.x + region.width
    above = [spot for spot in found if is_inside and spot.y > pointer.y]
    return found[len(found) - len(above) - 1 :: -1] + above[::-1]


def copied(at: Spot, as_property: bool = False) -> Iterator[float]:
    """Point at a place and have Blender copy the command or the data path of the button there to the clipboard."""
    bpy.context.window_manager.clipboard = "nothing"
    held = {"ctrl": True} | ({"alt": True, "shift": True} if as_property else {})
    # All at once, as Blender then draws once: a sidebar has many places.
    # Twice: the first move leaves the button of the place before, and only the second enters the one at this place.
    send("MOUSEMOVE", "NOTHING", Spot(at.x - 1, at.y, at.window))
    send("MOUSEMOVE", "NOTHING", at)
    send("C", "PRESS", at, **held)
    send("C", "RELEASE", at, **held)
    yield MOMENT


def find(
    wanted: str, as_property: bool = False, upwards: bool = False, place: Place = SIDEBAR, across: float = 0.36
) -> Iterator[float]:
    """Point at place after place of a region until the wanted button is under the mouse."""
    seen = []
    for at in 3 * spots(place, across, upwards):  # again, as a button is not there while its panel is drawn anew
        yield from copied(at, as_property)
        found = bpy.context.window_manager.clipboard
        seen.append(found)
        if wanted in found:
            report["places"][wanted] = at
            return
    raise LookupError(f"{wanted} is nowhere in {place}; there are {sorted(set(seen))}")


def click(
    wanted: str, as_property: bool = False, upwards: bool = False, place: Place = SIDEBAR, across: float = 0.36
) -> Iterator[float]:
    """Find a button and press it; one that a row above has moved in the meantime is found again, as by a person."""
    for _ in range(5):
        yield from find(wanted, as_property, upwards, place, across)
        yield from copied(report["places"][wanted], as_property)
        if wanted in bpy.context.window_manager.clipboard:
            break
    yield from press("LEFTMOUSE", report["places"][wanted])


def write(text: str, at: Spot) -> Iterator[float]:
    """Type into the field that is being edited, and confirm."""
    for character in text:
        yield from press(KEYS[character], at, unicode=character)
    yield from press("RET", at)


# --- the add-on's tab


def watch_panels() -> None:
    """From now on `drawn` names every panel of the add-on's tab that Blender draws."""
    for name in dir(bpy.types):
        listed = getattr(bpy.types, name)
        if (
            "_PT_" in name
            and listed.__module__.startswith(os.environ["DREAMWRIGHT_TEST_ADDON"])
            and getattr(listed, "bl_region_type", "") == "UI"
        ):
            listed.append(lambda drawing, _context: drawn.add(type(drawing).__name__))


def open_tab() -> Iterator[float]:
    """Press N over the 3D view, then press along the column of tabs until the add-on's panels show."""
    if not area_of("VIEW_3D").spaces.active.show_region_ui:
        yield from press("N", center(VIEW))
        yield from until(lambda: region_of(SIDEBAR).width > 50, "the sidebar")
    sidebar = region_of(SIDEBAR)
    for below in range(24, 400, 12):
        if drawn:
            return
        yield from press("LEFTMOUSE", Spot(sidebar.x + sidebar.width - 10, sidebar.y + sidebar.height - below))
        yield MOMENT
    raise LookupError("no tab of the sidebar shows the add-on's panels")


def unfold(*names: str) -> None:
    """Have panels of the add-on open that begin closed: "list_operators.DREAMWRIGHT_PT_list"; before the tab opens."""
    module = os.environ["DREAMWRIGHT_TEST_ADDON"]
    addon_utils.disable(module)
    for name in names:
        found = getattr(addon(name.split(".")[0]), name.split(".")[1])
        found.bl_options = set(getattr(found, "bl_options", set())) - {"DEFAULT_CLOSED"}
    addon_utils.enable(module)


def open_connected_tab() -> Iterator[float]:
    """Open the add-on's tab and wait until the server of the test has answered."""
    yield from redrawn()
    yield from open_tab()
    yield from until(lambda: session().is_online and session().capabilities is not None, "the connection")


def split_view(share: float) -> Iterator[float]:
    """Cut the 3D view in two; the left part gets that share of its width."""
    with bpy.context.temp_override(area=area_of("VIEW_3D"), region=region_of(VIEW)):
        bpy.ops.screen.area_split(direction="VERTICAL", factor=share)
    yield from redrawn()  # the parts have their places only then


def leftmost(kind: str) -> Any:
    """The leftmost editor of a kind."""
    return min((area for _, area in editors(kind)), key=lambda area: area.x)


def delete_cube() -> Iterator[float]:
    """Delete the start-up file's cube, which is selected already."""
    yield from redrawn()
    yield from press("DEL", center(VIEW))


def show_materials() -> Iterator[float]:
    """Frame the selected object in Material Preview, and wait for its shaders."""
    view = center(VIEW)
    yield from press("NUMPAD_PERIOD", view)
    area_of("VIEW_3D").spaces.active.shading.type = "MATERIAL"
    yield from point(view)
    yield from settled()


def undo(is_undone: Callable[[], bool]) -> Iterator[float]:
    """Ctrl Z over the 3D view, and wait for its effect."""
    yield from press("Z", center(VIEW), ctrl=True)
    yield from until(is_undone, "the undo")


def redo(is_redone: Callable[[], bool]) -> Iterator[float]:
    """Ctrl Shift Z over the 3D view, and wait for its effect."""
    yield from press("Z", center(VIEW), ctrl=True, shift=True)
    yield from until(is_redone, "the redo")


def editors_with_preview() -> list[Any]:
    """Image Editors that show the preview."""
    shown = [area for _, area in editors("IMAGE_EDITOR") if area.spaces.active.image]
    return [area for area in shown if area.spaces.active.image.name == "Dreamwright Preview"]


def imported_objects() -> list[Any]:
    """Objects that the add-on made."""
    return [one for one in bpy.data.objects if "dreamwright_prompt" in one]


# --- the camera


def shoot(path: Path, window: int = 0) -> None:
    """Take a screenshot of a window; Blender redraws it for that."""
    with bpy.context.temp_override(window=bpy.context.window_manager.windows[window]):
        bpy.ops.screen.screenshot(filepath=str(path))


def picture(name: str, window: int = 0) -> Iterator[float]:
    """A numbered screenshot, and the position of the mouse, which Blender does not draw."""
    for area in bpy.context.window_manager.windows[window].screen.areas:
        area.tag_redraw()
    yield MOMENT
    path = Path(os.environ["PICTURES"]) / f"{len(report['pictures']) + 1}-{name}.png"
    shoot(path, window)
    report["pictures"].append(path.name)
    if pointer.window == window:
        report["pointers"][path.name] = [pointer.x, pointer.y]


def redrawn() -> Iterator[float]:
    """Wait until the 3D view has been redrawn."""
    drawings: list[bool] = []
    handler = bpy.types.SpaceView3D.draw_handler_add(lambda: drawings.append(True), (), "WINDOW", "POST_PIXEL")
    area_of("VIEW_3D").tag_redraw()
    yield from until(lambda: bool(drawings), "a new drawing of the 3D view")
    bpy.types.SpaceView3D.draw_handler_remove(handler, "WINDOW")


def settled() -> Iterator[float]:
    """Until the 3D view shows its materials: the first drawing has them compiled in the background."""
    yield from redrawn()
    yield from until(lambda: not bpy.app.is_job_running("SHADER_COMPILATION"), "the shaders", 120)
    yield from redrawn()


def perform(steps: Iterator[float], finish: Callable[[int], None]) -> None:
    """Run the steps on a timer, print the report and close the window; an exception leaves a screenshot."""

    def tick() -> float | None:
        try:
            return next(steps)
        except StopIteration:
            report["notices"] = [notice.text for notice in session().notices]
            report["drawn"] = sorted(drawn)
            print("REPORT " + json.dumps(report))
            finish(0)
        except Exception:
            traceback.print_exc()
            shoot(Path(os.environ["PICTURES"]) / "fault.png", -1)
            sys.stdout.flush()
            finish(1)
        return None

    bpy.app.timers.register(tick, first_interval=0.5)


def perform_connected(steps: Iterator[float], finish: Callable[[int], None]) -> None:
    """As `perform`, with the test's server as the address to which the add-on connects, and `drawn` up to date."""
    bpy.context.preferences.addons[os.environ["DREAMWRIGHT_TEST_ADDON"]].preferences.address = os.environ["SERVER"]
    watch_panels()
    perform(steps, finish)
