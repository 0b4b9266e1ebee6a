# SPDX-License-Identifier: GPL-3.0-or-later
"""Import of a finished asset: a collection with its levels of detail and collision hulls, in one undo step."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import bpy
from mathutils import Matrix, Vector

from . import compat, placement
from .provenance import PREFIX

HULL = "UCX_"  # begins the names of collision hulls
NAME_CHARACTERS = 40  # so that UCX_NAME_LOD0_00 fits Blender's 63 bytes


def asset_name(text: str) -> str:
    """A name of ASCII letters, digits and underscores, as the command itself makes it; "prop" where nothing stays."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")[:NAME_CHARACTERS].strip("_") or "prop"


def import_finished(made: Path, name: str, source: dict[str, Any]) -> str:
    """Import NAME_scene.glb where the source object is; a sentence that says what was done.

    The finest level is visible and selected; coarser ones and hulls are hidden, with the screen size as a custom
    property. Raises ValueError and OSError, and then leaves nothing behind.
    """
    report = json.loads((made / f"{name}.json").read_text(encoding="utf-8"))
    return compat.with_window(bpy.context, lambda: _import(made / f"{name}_scene.glb", name, source, report))


def _import(path: Path, name: str, source: dict[str, Any], report: dict[str, Any]) -> str:
    context = bpy.context
    placement.check_scene(context)
    placement.leave_edit_mode(context)
    collections = set(bpy.data.collections)
    try:
        with placement.discard_on_error():
            done = _objects(context, path, name, source, report)
    except BaseException:
        for one in [one for one in bpy.data.collections if one not in collections]:
            bpy.data.collections.remove(one)
        raise
    placement.push_undo(f"Finish: {name}")
    return done


def _objects(context: Any, path: Path, name: str, source: dict[str, Any], report: dict[str, Any]) -> str:
    before = set(bpy.data.objects)
    try:
        with compat.numpy_bool():
            bpy.ops.import_scene.gltf(filepath=str(path))
    except RuntimeError as error:
        raise ValueError(f"Blender could not read the finished files: {compat.operator_fault(error)}") from error
    found = [one for one in bpy.data.objects if one not in before]
    meshes = sorted((one for one in found if one.type == "MESH"), key=lambda one: one.name)
    if not meshes:
        raise ValueError("the finished files hold no mesh")
    collection = bpy.data.collections.new(name)
    context.scene.collection.children.link(collection)
    for one in meshes:
        for other in list(one.users_collection):
            other.objects.unlink(one)
        collection.objects.link(one)
        _set_place(one, source, report)
    for one in [one for one in found if one.type != "MESH"]:
        bpy.data.objects.remove(one)
    hulls = [one for one in meshes if one.name.startswith(HULL)]
    levels = [one for one in meshes if one not in hulls]
    for level, figures in zip(levels, report["levels"], strict=False):
        for key in ("screen_size", "hausdorff", "texels_per_m"):
            if key in figures:
                level[PREFIX + key] = float(figures[key])
    for hull in hulls:
        hull.display_type = "WIRE"
    context.view_layer.update()
    for one in [*levels[1:], *hulls]:
        one.hide_set(True)
        one.hide_render = True
    for one in list(context.selected_objects):
        one.select_set(False)
    levels[0].select_set(True)
    context.view_layer.objects.active = levels[0]
    counts = ", ".join(str(len(level.data.polygons)) for level in levels)
    hull_text = f" and {len(hulls)} collision hull{'s' * (len(hulls) != 1)}" if hulls else ""
    return (
        f"Finished “{source['object']}”: levels of {counts} triangles{hull_text}, in the collection “{collection.name}”"
    )


def _set_place(one: Any, source: dict[str, Any], report: dict[str, Any]) -> None:
    """Put an object where it lies over the source. The file has it in world coordinates, moved and scaled by its pivot:
    placed = scale v + offset.
    """
    pivot = report["steps"]["pivot"]
    scale = float(pivot.get("scale", 1.0))
    if source["pivot"] == "keep":  # its origin is the source's, its mesh still about the world's
        origin = Vector(source["location"])
        one.data.transform(Matrix.Translation(-scale * origin))
        one.location = origin
    else:
        one.location = -Vector(pivot["offset"]) / scale
