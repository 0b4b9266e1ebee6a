# SPDX-License-Identifier: GPL-3.0-or-later
"""At a window: imports a prop while a 3D view is in local view, whose flags Blender updates only when it draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import bpy
from import_samples import import_tetrahedron
from ui_driver import VIEW, area_of, perform, picture, redrawn, region_of, report, until

finish: Callable[[int], None]


def toggle_local_view() -> None:
    windows = bpy.context.window_manager.windows
    with bpy.context.temp_override(window=windows[0], area=area_of("VIEW_3D"), region=region_of(VIEW)):
        bpy.ops.view3d.localview()


def work() -> Iterator[float]:
    """Local view of the cube, import, leave local view, import again."""
    cube, light = bpy.data.objects["Cube"], bpy.data.objects["Light"]
    for one in bpy.context.selected_objects:
        one.select_set(False)
    cube.select_set(True)
    toggle_local_view()
    yield from redrawn()
    space: Any = area_of("VIEW_3D").spaces.active
    made = import_tetrahedron()
    yield from redrawn()
    yield from picture("local-view")
    report["local"] = space.local_view is not None
    evaluated = bpy.context.evaluated_depsgraph_get()  # originals of Blender 3.4 and 4.2 do not have these flags
    report["joined"] = {
        one.name: one.evaluated_get(evaluated).visible_in_viewport_get(space) for one in (cube, light, made)
    }
    report["visible"] = made.visible_get(viewport=space)
    toggle_local_view()
    yield from until(lambda: space.local_view is None, "the end of the local view")
    yield from redrawn()
    report["visible after"] = import_tetrahedron().visible_get(viewport=space)


perform(work(), finish)
