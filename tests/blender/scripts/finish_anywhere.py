# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender without a window: overridden, shared and keyed meshes are finished, also in other units."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

ADDON: str  # given by run_installed.py

operators: Any = importlib.import_module(f"{ADDON}.finish_operators")
session: Any = importlib.import_module(f"{ADDON}.addon_state").session()
bpy.context.preferences.addons[ADDON].preferences.command = os.environ["COMMAND"]
LIBRARY = Path(tempfile.mkdtemp()) / "library.blend"


def empty_file() -> None:
    bpy.ops.wm.read_homefile(use_empty=True)
    session.notices.clear()


def ball(name: str = "Ball") -> Any:
    bpy.ops.mesh.primitive_uv_sphere_add(segments=16, ring_count=8)
    made = bpy.context.view_layer.objects.active
    made.name = name
    return made


def overridden() -> Any:
    """The library's object as an override, in the active collection, which takes no other object."""
    with bpy.data.libraries.load(str(LIBRARY), link=True) as (_, wanted):
        wanted.collections = ["Props"]
    props, layer = wanted.collections[0], bpy.context.view_layer
    layer.layer_collection.collection.children.link(props)
    props = props.override_hierarchy_create(bpy.context.scene, layer)
    layer.active_layer_collection = next(one for one in layer.layer_collection.children if one.collection == props)
    return props.objects[0]


def keyed() -> Any:
    """Its shape key, in use, doubles it; another object has the same mesh."""
    made = ball()
    bpy.context.scene.collection.objects.link(bpy.data.objects.new("Copy", made.data))
    made.shape_key_add(name="Basis")
    key = made.shape_key_add(name="Double")
    for point, vertex in zip(key.data, made.data.vertices, strict=True):
        point.co = 2 * vertex.co
    key.value = 1.0
    return made


def in_centimeters() -> Any:
    units = bpy.context.scene.unit_settings
    units.system, units.scale_length = "METRIC", 0.01
    return ball()


SOURCES: dict[str, Callable[[], Any]] = {
    "overridden": overridden,
    "keyed": keyed,
    "centimeters": in_centimeters,
}


def finished(source: Any, **options: Any) -> dict[str, Any]:
    """Finish one object: what was said, and the height of what arrived."""
    layer, before = bpy.context.view_layer, set(bpy.data.objects)
    layer.objects.active = source
    source.select_set(True)
    layer.update()
    bpy.ops.dreamwright.finish_mesh(triangles=200, levels=0, steps={"pivot", "remesh"}, **options)
    while operators.step():
        time.sleep(0.05)
    layer.update()
    made = [one for one in bpy.data.objects if one not in before]
    return {
        "said": session.notices[-1].text,
        "height": made[0].dimensions.z if made else 0.0,
        "visible": bool(made) and made[0].visible_get(),
        "kept": source.name in bpy.data.objects,
        "unit scale": bpy.context.scene.unit_settings.scale_length,
    }


def refusal_of_hidden() -> str:
    """A hidden object cannot be selected."""
    source = ball()
    source.hide_set(True)
    return "" if bpy.ops.dreamwright.finish_mesh.poll() else "refused"


empty_file()
props = bpy.data.collections.new("Props")
bpy.context.scene.collection.children.link(props)
bpy.context.view_layer.active_layer_collection = bpy.context.view_layer.layer_collection.children["Props"]
ball()
bpy.ops.wm.save_as_mainfile(filepath=str(LIBRARY), copy=True)
report: dict[str, Any] = {}
for name, make in SOURCES.items():
    empty_file()
    report[name] = finished(make())
report["one meter"] = finished(bpy.data.objects["Ball"], height_m=1.0)
empty_file()
report["hidden"] = refusal_of_hidden()
print("REPORT " + json.dumps(report))
