# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender with a window: a textured prop is imported and undone in one step, image and all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import bpy
from ui_driver import (
    VIEW,
    area_of,
    center,
    dreamt,
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
)

ADDON: str  # given by run_installed.py
finish: Callable[[int], None]


def held() -> dict[str, Any]:
    """What an import brings."""
    kinds = {"meshes": bpy.data.meshes, "materials": bpy.data.materials, "images": bpy.data.images}
    return {kind: sorted(one.name for one in all_ if one.name.startswith("a red")) for kind, all_ in kinds.items()}


def work() -> Iterator[float]:
    """Choose an image, generate, import, undo, redo."""
    yield from redrawn()
    view = center(VIEW)
    yield from press("DEL", view)
    yield from open_tab()
    yield from until(lambda: session().is_online and session().capabilities is not None, "the connection")
    panel().prompt, panel().color_as, panel().texture_size = "a red mushroom", "IMAGE", 64
    bpy.ops.dreamwright.generate()
    yield from until(lambda: any(job.state == "succeeded" for job in session().jobs.values()), "the job")
    before = held()
    bpy.ops.dreamwright.import_mesh(job=next(iter(session().jobs)))
    yield from until(lambda: bool(dreamt()), "the import")
    report["held"] = [before, held()]
    yield from press("NUMPAD_PERIOD", view)  # look at it
    area_of("VIEW_3D").spaces.active.shading.type = "MATERIAL"
    yield from point(view)
    yield from settled()
    yield from picture("textured")
    yield from press("Z", view, ctrl=True)
    yield from until(lambda: not dreamt(), "the undo")
    report["held"].append(held())
    yield from press("Z", view, ctrl=True, shift=True)
    yield from until(lambda: bool(dreamt()), "the redo")
    report["held"].append(held())
    report["redone"] = list(bpy.data.images["a red mushroom"].size)


bpy.context.preferences.addons[ADDON].preferences.address = os.environ["SERVER"]
watch_panels()
perform(work(), finish)
