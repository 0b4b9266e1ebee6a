# SPDX-License-Identifier: GPL-3.0-or-later
"""Import of a finished asset: a collection with its levels of detail and collision hulls, in one undo step."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
from mathutils import Matrix, Vector

from . import compat, import_places, placement
from .datablocks.quads import join_into_quads
from .provenance import PREFIX
from .wording import say

HULL = "UCX_"  # begins the names of collision hulls
FINISHED, LEVEL, HULL_NUMBER = PREFIX + "finished", PREFIX + "level", PREFIX + "hull"  # custom properties
QUADS = PREFIX + "quads"  # of a level: share of its faces
NAME_CHARACTERS = 40  # so that UCX_NAME_LOD0_00 fits Blender's 63 bytes


def asset_name(text: str) -> str:
    """A name of ASCII letters, digits and underscores, as the command itself makes it; "prop" where nothing stays."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")[:NAME_CHARACTERS].strip("_") or "prop"


def levels_of(collection: Any) -> dict[str, Any]:
    """The levels of detail of a finished collection, from fine to coarse, by the names that engines expect.

    Blender adds numbers to names that are taken; of copies of a level only the first counts.
    """
    found = [one for one in sorted(collection.objects, key=lambda one: one.name) if LEVEL in one]
    first = {one[LEVEL]: one for one in reversed(found)}
    return {f"{collection[FINISHED]}_LOD{number}": first[number] for number in sorted(first)}


def hulls_of(collection: Any) -> dict[str, Any]:
    """The collision hulls of a finished collection, copies too, by the names that engines expect."""
    found = [one for one in collection.objects if HULL_NUMBER in one]
    found.sort(key=lambda one: (one[HULL_NUMBER], one.name))
    return {f"{HULL}{collection[FINISHED]}_LOD0_{number:02d}": one for number, one in enumerate(found)}


def import_finished(made: Path, name: str, source: dict[str, Any], stage: import_places.Stage | None = None) -> str:
    """Import NAME_scene.glb where the source object is, on the stage; a sentence that says what was done.

    The finest level is visible and selected; coarser ones and hulls are hidden, with the screen size as a custom
    property. Raises ValueError and OSError, and then leaves nothing behind.
    """
    report = json.loads((made / f"{name}.json").read_text(encoding="utf-8"))
    return compat.with_window(bpy.context, lambda: _import(made / f"{name}_scene.glb", name, source, report, stage))


def _import(
    path: Path, name: str, source: dict[str, Any], report: dict[str, Any], stage: import_places.Stage | None
) -> str:
    context = stage or import_places.stage_here()
    placement.check_scene(context)
    placement.leave_edit_mode(context)
    collections = set(bpy.data.collections)
    try:
        with placement.discard_on_error(context.view_layer):
            done = _objects(context, path, name, source, report)
    except BaseException:
        for one in [one for one in bpy.data.collections if one not in collections]:
            bpy.data.collections.remove(one)
        raise
    placement.push_undo(say("Finish: {name}", name=name))
    return done


def _objects(context: Any, path: Path, name: str, source: dict[str, Any], report: dict[str, Any]) -> str:
    before = set(bpy.data.objects)
    try:
        with compat.numpy_bool(), _plain_import(context):
            bpy.ops.import_scene.gltf(filepath=str(path))
    except RuntimeError as error:
        raise ValueError(
            say("Blender could not read the finished files: {error}", error=compat.operator_fault(error))
        ) from error
    found = [one for one in bpy.data.objects if one not in before]
    meshes = sorted((one for one in found if one.type == "MESH"), key=lambda one: one.name)
    if not meshes:
        raise ValueError(say("the finished files hold no mesh"))
    collection = bpy.data.collections.new(name)
    collection[FINISHED] = name
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
    for number, level in enumerate(levels):
        level[LEVEL] = number
        if source.get("quads"):
            level[QUADS] = join_into_quads(level.data)
    for number, hull in enumerate(hulls):
        hull[HULL_NUMBER] = number
        hull.display_type = "WIRE"
    context.view_layer.update()
    for one in [*levels[1:], *hulls]:
        one.hide_set(True, view_layer=context.view_layer)
        one.hide_render = True
    layer = context.view_layer
    for one in list(layer.objects.selected):
        one.select_set(False, view_layer=layer)
    levels[0].select_set(True, view_layer=layer)
    layer.objects.active = levels[0]
    counts = ", ".join(str(len(level.data.polygons)) for level in levels)
    if len(hulls) == 1:
        hull_text = say(" and 1 collision hull")
    else:
        hull_text = say(" and {count} collision hulls", count=len(hulls)) if hulls else ""
    if source.get("quads"):
        return say(
            "Finished “{object}”: levels of {counts} faces, of which {shares} % are quads{hull_text}, in the "
            "collection “{name}”",
            object=source["object"],
            counts=counts,
            shares=", ".join(f"{100 * level[QUADS]:.0f}" for level in levels),
            hull_text=hull_text,
            name=collection.name,
        )
    return say(
        "Finished “{object}”: levels of {counts} triangles{hull_text}, in the collection “{name}”",
        object=source["object"],
        counts=counts,
        hull_text=hull_text,
        name=collection.name,
    )


@contextmanager
def _plain_import(context: Any) -> Iterator[None]:
    """Have Blender's importer keep lengths, and add to the scene's own collection; the scene is shown meanwhile."""
    units, window, layer = context.scene.unit_settings, bpy.context.window, context.view_layer
    shown, active = window.scene if window is not None else None, layer.active_layer_collection
    if shown is not None and shown != context.scene:
        window.scene = context.scene  # the importer takes no other scene
    scale, units.scale_length = units.scale_length, 1.0  # it divides by the unit scale; the exporter does not multiply
    layer.active_layer_collection = layer.layer_collection  # the active one may be linked, and take no objects
    try:
        yield
    finally:
        units.scale_length, layer.active_layer_collection = scale, active
        if shown is not None and window.scene != shown:
            window.scene = shown


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
