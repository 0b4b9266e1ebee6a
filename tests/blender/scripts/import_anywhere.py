# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender without a window: a prop arrives in another mode, scene, unit or file than it was asked for in."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import bpy
from headless import connect, imported_jobs, poll, session, until

FOLDER = Path(os.environ["BLENDER_USER_RESOURCES"])


def mine() -> Any:
    return bpy.context.window_manager.dreamwright


def empty_file() -> None:
    bpy.ops.wm.read_homefile(use_empty=True)
    session.notices.clear()


def generate(automatic: bool = True) -> str:
    """Ask for a prop; the job's id once the server has named it."""
    mine().import_when_done = automatic
    known = set(session.jobs)
    bpy.ops.dreamwright.generate(prompt="a red mushroom")
    until(lambda: bool(set(session.jobs) - known) and not session.pending, "the job")
    return (set(session.jobs) - known).pop()


def ready(job: str) -> None:
    until(lambda: session.jobs[job].state == "succeeded", "the end of the job")


def said() -> list[str]:
    return [notice.text for notice in session.notices]


def prop() -> Any:
    return next(one for one in bpy.data.objects if "dreamwright_prompt" in one)


def show(scene: Any) -> None:
    bpy.context.window_manager.windows[0].scene = scene


def cube(name: str = "Cube") -> Any:
    bpy.ops.mesh.primitive_cube_add()
    made = bpy.context.view_layer.objects.active
    made.name = name
    return made


# --- modes


def in_mode(mode: str, by_button: bool) -> dict[str, Any]:
    """A prop arrives while the cube is in a mode."""
    empty_file()
    owner = cube()
    owner.data.uv_layers[0].active = True
    job = generate(not by_button)
    bpy.ops.object.mode_set(mode=mode)
    ready(job)
    if by_button:
        bpy.ops.dreamwright.import_mesh(job=job)
        until(lambda: imported_jobs() == [job], "the import")
        return {"mode": owner.mode, "active": bpy.context.view_layer.objects.active == prop()}
    until(lambda: any("will be imported" in text for text in said()), "the notice")
    poll(timeout_s=0.1)
    active = bpy.context.view_layer.objects.active
    found = {"mode": owner.mode, "active": active == owner, "selected": owner.select_get(), "said": said()}
    found["early"] = imported_jobs()
    bpy.ops.object.mode_set(mode="OBJECT")
    until(lambda: imported_jobs() == [job], "the import")
    return found


# --- scenes


def in_another_scene(change: str) -> dict[str, Any]:
    """The prop is asked for in the first scene, and arrives while the second is shown."""
    empty_file()
    first = bpy.context.window_manager.windows[0].scene
    first.name = "First"
    first.cursor.location = (1, 2, 3)
    job = generate()
    second = bpy.data.scenes.new("Second")
    show(second)
    other = cube("Other")
    if change == "deleted":
        bpy.data.scenes.remove(first)
    elif change == "renamed":
        first.name = "Renamed"
    ready(job)
    until(lambda: imported_jobs() == [job], "the import")
    made = prop()
    layer = bpy.context.window_manager.windows[0].view_layer
    return {
        "scenes": [one.name for one in made.users_scene],
        "shown": bpy.context.window_manager.windows[0].scene.name,
        "kept": layer.objects.active == other and other.select_get(view_layer=layer),
        "location": list(made.location),
        "said": said(),
    }


# --- units


def in_units(system: str, scale: float) -> dict[str, Any]:
    empty_file()
    units = bpy.context.scene.unit_settings
    units.system, units.scale_length = system, scale
    mine().height_m = 0.5
    shown = mine().height
    job = generate()
    ready(job)
    until(lambda: imported_jobs() == [job], "the import")
    bpy.context.view_layer.update()
    return {"height": prop().dimensions.z, "scale": list(prop().scale), "shown": shown}


# --- files


def across_files(change: str) -> dict[str, Any]:
    """Another file is opened while the job runs."""
    empty_file()
    path = str(FOLDER / f"{change}.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    job = generate()
    jobs = sorted(session.jobs)
    if change == "loaded again":
        bpy.ops.wm.open_mainfile(filepath=path)
    elif change == "saved as another":
        bpy.ops.wm.save_as_mainfile(filepath=str(FOLDER / "another.blend"))
    elif change == "another file":
        bpy.ops.wm.read_homefile(use_empty=True)
    elif change == "appended to":
        library = str(FOLDER / "library.blend")
        with bpy.data.libraries.load(library) as (offered, wanted):
            wanted.collections = list(offered.collections)
        bpy.context.scene.collection.children.link(wanted.collections[0])
    ready(job)
    until(lambda: any("mported" in text for text in said()), "the end")
    poll(timeout_s=0.1)
    found = {"imported": len(imported_jobs()), "said": said(), "listed": sorted(session.jobs) == jobs}
    found["rows"] = len(mine().job_rows) == len(jobs)
    bpy.ops.dreamwright.import_mesh(job=job)
    until(lambda: len(imported_jobs()) == found["imported"] + 1, "the import by button")
    return found


def into_linked_collection() -> list[str]:
    """The message names the collection that could not take the prop."""
    empty_file()
    with bpy.data.libraries.load(str(FOLDER / "library.blend"), link=True) as (offered, wanted):
        wanted.collections = list(offered.collections)
    layer = bpy.context.view_layer.layer_collection
    layer.collection.children.link(wanted.collections[0])
    bpy.context.view_layer.active_layer_collection = layer.children[0]
    job = generate()
    ready(job)
    until(lambda: imported_jobs() == [job], "the import")
    return said()


def write_library() -> None:
    empty_file()
    props = bpy.data.collections.new("Props")
    bpy.context.scene.collection.children.link(props)
    props.objects.link(cube())
    bpy.ops.wm.save_as_mainfile(filepath=str(FOLDER / "library.blend"), copy=True)


def main() -> None:
    write_library()
    connect()
    report: dict[str, Any] = {
        "modes": {mode: in_mode(mode, False) for mode in ("EDIT", "SCULPT", "WEIGHT_PAINT", "TEXTURE_PAINT")},
        "button": {mode: in_mode(mode, True) for mode in ("EDIT", "SCULPT")},
        "scenes": {change: in_another_scene(change) for change in ("hidden", "deleted", "renamed")},
        "units": {
            f"{system} {scale}": in_units(system, scale)
            for system, scale in (("METRIC", 1.0), ("METRIC", 0.01), ("IMPERIAL", 1.0), ("NONE", 0.01))
        },
        "files": {
            change: across_files(change)
            for change in ("loaded again", "saved as another", "another file", "appended to")
        },
        "linked": into_linked_collection(),
    }
    print("REPORT " + json.dumps(report))


main()
