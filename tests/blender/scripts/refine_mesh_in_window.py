# SPDX-License-Identifier: GPL-3.0-or-later
"""At a window: refine the default cube by the panel's button and its dialog, import, undo and redo."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import bpy
from ui_driver import (
    VIEW,
    center,
    click,
    open_connected_tab,
    panel,
    perform_connected,
    picture,
    press,
    redo,
    redrawn,
    report,
    session,
    undo,
    until,
)

finish: Callable[[int], None]  # given by run_installed.py


def keys() -> list[str]:
    """The cube's shape keys."""
    cube = bpy.data.objects["Cube"]
    return [block.name for block in cube.data.shape_keys.key_blocks] if cube.data.shape_keys else []


def imported(job: str, condition: Callable[[], bool]) -> Iterator[float]:
    """Import, undo, redo; whether it was there each time."""
    bpy.ops.dreamwright.import_mesh(job=job)
    yield from until(condition, "the import")
    states = [condition()]
    yield from undo(lambda: not condition())
    states.append(condition())
    yield from redo(condition)
    states.append(condition())
    report.setdefault("states", []).append(states)


def work() -> Iterator[float]:
    """A prompt, the button, the dialog, Enter; then both kinds of result."""
    yield from open_connected_tab()
    panel().prompt = "a red mushroom"
    yield from redrawn()
    yield from click("dreamwright.refine_mesh", across=0.7)
    yield 0.3
    yield from picture("dialog")
    report["before Enter"] = len(session().jobs) + len(session().pending)
    yield from press("RET", center(VIEW))
    yield from until(lambda: any(job.state == "succeeded" for job in session().jobs.values()), "the job")
    job = next(iter(session().jobs))
    report["settings"] = session().jobs[job].settings
    yield from imported(job, lambda: len([one for one in bpy.data.objects if "dreamwright_prompt" in one]) == 1)
    cube = bpy.data.objects["Cube"]
    for one in bpy.context.selected_objects:
        one.select_set(False)
    cube.select_set(True)
    bpy.context.view_layer.objects.active = cube
    bpy.ops.dreamwright.refine_mesh(prompt="a red chair", result="SHAPE_KEY")
    yield from until(
        lambda: len(session().jobs) == 2 and all(one.state == "succeeded" for one in session().jobs.values()),
        "the second job",
    )
    second = next(name for name in session().jobs if name != job)
    yield from imported(second, lambda: keys() == ["Basis", "Dreamwright: a red chair"])
    report["jobs"] = len(session().jobs)
    report["notices"] = [notice.text for notice in session().notices]
    yield from picture("refined")


perform_connected(work(), finish)
