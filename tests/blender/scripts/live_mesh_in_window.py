# SPDX-License-Identifier: GPL-3.0-or-later
"""At a window: a prop grows in the 3D views, in local view and in two of them, until it is imported."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bpy
from ui_driver import (
    VIEW,
    addon,
    area_of,
    center,
    click,
    editors,
    imported_objects,
    open_connected_tab,
    panel,
    perform_connected,
    picture,
    point,
    press,
    redrawn,
    region_of,
    report,
    session,
    undo,
    until,
)

finish: Callable[[int], None]  # given by run_installed.py

FILES, STEP_LIMIT = Path(os.environ["PICTURES"]), Path(os.environ["STEP_LIMIT"])
PLACE = (1.5, -1.0, 0.25)


def datablocks() -> dict[str, list[str]]:
    """The names of all datablocks that a live mesh could add to."""
    kinds = [name for name in dir(bpy.data) if isinstance(getattr(bpy.data, name), bpy.types.bpy_prop_collection)]
    # The preview is an image; the others belong to the window.
    skipped = ("images", "screens", "window_managers", "workspaces", "brushes", "palettes")
    return {kind: [one.name for one in getattr(bpy.data, kind)] for kind in kinds if kind not in skipped}


def shown() -> Any:
    """What is drawn."""
    return addon("live_mesh").shown()


def save(name: str) -> int:
    """Save a copy of the file; its size."""
    path = FILES / name
    bpy.ops.wm.save_as_mainfile(filepath=str(path), copy=True, compress=False)
    size = path.stat().st_size
    path.unlink()
    return size


def to_step(step: int) -> Iterator[float]:
    """Let the job go on to a step, and wait until its mesh is drawn."""
    STEP_LIMIT.write_text(str(step))
    yield from until(lambda: shown() is not None and shown().step == step, f"the mesh of step {step}")
    yield from redrawn()
    yield from redrawn()


def work() -> Iterator[float]:
    """Watch, look everywhere, import, load a file."""
    yield from redrawn()
    cube = bpy.data.objects["Cube"]
    yield from press("X", center(VIEW), shift=True)  # an undo step of the user's, the last before the job
    yield from press("ESC", center(VIEW))
    bpy.ops.ed.undo_push(message="start")
    cube.location.x = -4.0
    bpy.ops.ed.undo_push(message="moved")
    bpy.context.scene.cursor.location = PLACE
    yield from open_connected_tab()
    panel().prompt, panel().height_m = "a red mushroom", 1.6
    yield from point(center(VIEW))
    yield from picture("before")
    before, size = datablocks(), save("before.blend")

    yield from click("dreamwright.generate()")
    yield from until(lambda: bool(session().jobs), "the job")
    yield from to_step(20)
    yield from picture("early")
    yield from to_step(60)
    report["triangles"] = len(shown().corners)
    report["same datablocks"] = datablocks() == before
    report["bytes more"] = save("during.blend") - size
    yield from picture("late")

    yield from undo(lambda: bpy.data.objects["Cube"].location.x != -4.0)
    report["undone"] = bpy.data.objects["Cube"].location.x
    report["drawn after undo"] = shown() is not None
    with bpy.context.temp_override(area=area_of("VIEW_3D"), region=region_of(VIEW)):
        bpy.data.objects["Cube"].select_set(True)
        bpy.ops.view3d.localview(frame_selected=False)
    yield from redrawn()
    report["local view"] = area_of("VIEW_3D").spaces.active.local_view is not None
    yield from picture("local")
    with bpy.context.temp_override(area=area_of("VIEW_3D"), region=region_of(VIEW)):
        bpy.ops.view3d.localview(frame_selected=False)
        bpy.ops.screen.area_split(direction="VERTICAL", factor=0.4)
    yield from until(lambda: len(editors("VIEW_3D")) == 2, "the second view")
    yield from redrawn()
    yield from picture("two-views")

    panel().watch_in_view = False
    yield from until(lambda: shown() is None, "nothing drawn")
    report["handler when off"] = addon("live_mesh")._handler is not None
    yield from redrawn()
    yield from picture("off")
    panel().watch_in_view = True
    yield from to_step(70)

    STEP_LIMIT.write_text("100")
    job = next(iter(session().jobs))
    yield from until(lambda: session().jobs[job].state == "succeeded", "the end of the job", 120)
    report["drawn at the end"] = shown() is not None
    bpy.ops.dreamwright.import_mesh(job=job)
    yield from until(lambda: bool(imported_objects()), "the import")
    report["handler after import"] = addon("live_mesh")._handler is not None
    made = imported_objects()[0]
    report["place"] = list(made.location)
    yield from redrawn()
    yield from picture("imported")

    STEP_LIMIT.write_text("30")
    bpy.ops.dreamwright.generate(prompt="a blue chair")
    yield from until(lambda: shown() is not None, "the next prop")
    handler = addon("live_mesh")._handler
    bpy.ops.wm.read_homefile(app_template="", use_factory_startup=True)
    report["drawn after loading a file"] = shown() is not None
    report["handler was there"] = handler is not None


perform_connected(work(), finish)
