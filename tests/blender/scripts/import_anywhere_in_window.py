# SPDX-License-Identifier: GPL-3.0-or-later
"""At windows: undo around imports in other modes, two windows with two scenes, and a render in progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import bpy
from ui_driver import (
    VIEW,
    area_of,
    imported_objects,
    open_connected_tab,
    panel,
    perform_connected,
    redo,
    redrawn,
    region_of,
    report,
    session,
    undo,
    until,
)

finish: Callable[[int], None]


def in_view(act: Callable[[], Any], window: int = 0) -> None:
    """Run an operator in the 3D view of the first window, or in another window, as one undo step."""
    chosen = bpy.context.window_manager.windows[window]
    more = {"area": area_of("VIEW_3D"), "region": region_of(VIEW)} if window == 0 else {}
    with bpy.context.temp_override(window=chosen, **more):
        act()


def ready_job() -> Iterator[float]:
    """Until a new job is done."""
    bpy.ops.dreamwright.generate(prompt="a red mushroom")
    yield from until(lambda: not session().pending and all_done(), "the end of the job")


def all_done() -> bool:
    return bool(session().jobs) and all(job.state == "succeeded" for job in session().jobs.values())


def cube() -> Any:
    return bpy.data.objects["Cube"]


def undo_in(mode: str) -> Iterator[float]:
    """Edit the cube, import by button, undo once, undo again, redo twice."""

    def enter() -> None:
        bpy.context.view_layer.objects.active = cube()
        bpy.ops.object.mode_set("EXEC_DEFAULT", True, mode=mode)

    def edit() -> None:
        if mode == "EDIT":
            bpy.ops.mesh.select_all("EXEC_DEFAULT", True, action="SELECT")
            bpy.ops.mesh.subdivide("EXEC_DEFAULT", True)
        else:
            bpy.ops.object.voxel_remesh("EXEC_DEFAULT", True)

    def vertices() -> int:
        if cube().mode == "EDIT":
            cube().update_from_editmode()
        return len(cube().data.vertices)

    found: dict[str, Any] = {}
    cube().data.remesh_voxel_size = 0.25
    in_view(enter)
    yield from redrawn()
    in_view(edit)
    yield from redrawn()
    found["edited"] = [cube().mode, vertices()]
    before = len(imported_objects())
    job = next(iter(session().jobs))
    in_view(lambda: bpy.ops.dreamwright.import_mesh(job=job))
    yield from until(lambda: len(imported_objects()) == before + 1, "the import")
    yield from redrawn()
    found["imported"] = [cube().mode, vertices()]
    yield from undo(lambda: len(imported_objects()) == before)
    yield from redrawn()
    found["undone"] = [cube().mode, vertices()]
    yield from redo(lambda: len(imported_objects()) == before + 1)
    yield from redrawn()
    found["redone"] = [cube().mode, vertices()]
    yield from undo(lambda: len(imported_objects()) == before)
    yield from undo(lambda: cube().mode == mode)
    yield from redrawn()
    found["undone again"] = [cube().mode, vertices()]
    in_view(lambda: bpy.ops.object.mode_set("EXEC_DEFAULT", True, mode="OBJECT"))
    yield from redrawn()
    report[f"undo in {mode}"] = found


def automatic_undo() -> Iterator[float]:
    """An automatic import that waited for Object Mode is one undo step by itself."""
    panel().import_when_done = True
    before = len(imported_objects())
    in_view(lambda: bpy.ops.object.mode_set("EXEC_DEFAULT", True, mode="EDIT"))
    yield from ready_job()
    yield from until(lambda: any("will be imported" in one.text for one in session().notices), "the notice")
    waited = [cube().mode, len(imported_objects()) - before]
    in_view(lambda: bpy.ops.object.mode_set("EXEC_DEFAULT", True, mode="OBJECT"))
    yield from until(lambda: len(imported_objects()) == before + 1, "the import")
    yield from redrawn()
    yield from undo(lambda: len(imported_objects()) == before)
    report["automatic"] = {"waited": waited, "undone": [cube().mode, bpy.context.view_layer.objects.active == cube()]}
    panel().import_when_done = False


def two_windows() -> Iterator[float]:
    """Import is pressed in the second window, which shows another scene."""
    first = bpy.context.window_manager.windows[0]
    in_view(bpy.ops.wm.window_new_main)  # a child window has the scene of its parent
    yield from until(lambda: len(bpy.context.window_manager.windows) == 2, "a second window")
    second, scene = bpy.context.window_manager.windows[1], bpy.data.scenes.new("Second")
    second.scene = scene
    scene.cursor.location = (1, 2, 3)
    yield from redrawn()
    before, kept = len(imported_objects()), first.view_layer.objects.active
    job = next(iter(session().jobs))
    in_view(lambda: bpy.ops.dreamwright.import_mesh(job=job), window=1)
    yield from until(lambda: len(imported_objects()) == before + 1, "the import")
    made = next(one for one in scene.objects if "dreamwright_prompt" in one)
    report["two windows"] = {
        "scenes": [one.name for one in made.users_scene],
        "location": list(made.location),
        "active": second.view_layer.objects.active == made,
        "kept": first.view_layer.objects.active == kept,
        "said": session().notices[-1].text,
    }
    with bpy.context.temp_override(window=second):
        bpy.ops.wm.window_close()
    yield from until(lambda: len(bpy.context.window_manager.windows) == 1, "one window")


def while_rendering() -> Iterator[float]:
    """Import is pressed while a render runs."""
    scene = bpy.context.window_manager.windows[0].scene
    scene.render.engine, scene.cycles.device = "CYCLES", "CPU"
    scene.cycles.samples, scene.cycles.use_adaptive_sampling = 100_000, False
    scene.cycles.use_denoising, scene.cycles.time_limit = False, 15.0  # seconds of render
    scene.render.resolution_x = scene.render.resolution_y = 64
    before, job = len(imported_objects()), next(iter(session().jobs))
    session().notices.clear()
    bpy.context.preferences.view.render_display_type = "NONE"
    in_view(lambda: bpy.ops.render.render("INVOKE_DEFAULT"))
    yield from until(lambda: bpy.app.is_job_running("RENDER"), "the render")
    bpy.ops.dreamwright.import_mesh(job=job)
    yield from until(lambda: any("will be imported" in one.text for one in session().notices), "the notice")
    report["render"] = {"said": session().notices[-1].text, "early": len(imported_objects()) - before}
    yield from until(lambda: len(imported_objects()) == before + 1, "the import after the render", 120)


PARTS: dict[str, Callable[[], Iterator[float]]] = {
    "EDIT": lambda: undo_in("EDIT"),
    "SCULPT": lambda: undo_in("SCULPT"),
    "automatic": automatic_undo,
    "windows": two_windows,
    "render": while_rendering,
}


def work() -> Iterator[float]:
    """One part, or several."""
    yield from open_connected_tab()
    yield from ready_job()
    for part in os.environ["PART"].split():
        yield from PARTS[part]()


perform_connected(work(), finish)
