# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender with a window: a textured prop is imported and undone in one step, image and all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import bpy
from ui_driver import (
    delete_cube,
    imported_objects,
    open_connected_tab,
    panel,
    perform_connected,
    picture,
    redo,
    report,
    session,
    show_materials,
    undo,
    until,
)

finish: Callable[[int], None]  # given by run_installed.py


def held() -> dict[str, Any]:
    """What an import brings."""
    kinds = {"meshes": bpy.data.meshes, "materials": bpy.data.materials, "images": bpy.data.images}
    return {kind: sorted(one.name for one in all_ if one.name.startswith("a red")) for kind, all_ in kinds.items()}


def work() -> Iterator[float]:
    """Choose an image, generate, import, undo, redo."""
    yield from delete_cube()
    yield from open_connected_tab()
    panel().prompt, panel().color_as, panel().texture_size = "a red mushroom", "IMAGE", 64
    bpy.ops.dreamwright.generate()
    yield from until(lambda: any(job.state == "succeeded" for job in session().jobs.values()), "the job")
    before = held()
    bpy.ops.dreamwright.import_mesh(job=next(iter(session().jobs)))
    yield from until(lambda: bool(imported_objects()), "the import")
    report["held"] = [before, held()]
    yield from show_materials()
    yield from picture("textured")
    yield from undo(lambda: not imported_objects())
    report["held"].append(held())
    yield from redo(lambda: bool(imported_objects()))
    report["held"].append(held())
    report["redone"] = list(bpy.data.images["a red mushroom"].size)


perform_connected(work(), finish)
