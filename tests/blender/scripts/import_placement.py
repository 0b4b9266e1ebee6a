# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports a prop into scenes with linked, overridden, hidden and excluded collections and with shared meshes."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from import_samples import JOB, mesh_file, tetrahedron

ADDON = os.environ["DREAMWRIGHT_TEST_ADDON"]
import_mesh: Any = importlib.import_module(f"{ADDON}.import_mesh")
import_refined: Any = importlib.import_module(f"{ADDON}.import_refined")
object_mesh: Any = importlib.import_module(f"{ADDON}.object_mesh")
placement: Any = importlib.import_module(f"{ADDON}.placement")

LIBRARY = Path(tempfile.mkdtemp()) / "library.blend"


def empty_file() -> None:
    bpy.ops.wm.read_homefile(use_empty=True)


def new_object(name: str, collection: Any) -> Any:
    data = bpy.data.meshes.new(name)
    data.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)], [], [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)])
    made = bpy.data.objects.new(name, data)
    collection.objects.link(made)
    bpy.context.view_layer.update()
    return made


def activate(collection: Any) -> Any:
    """Make a collection, which is somewhere below the scene's, the active one."""
    pending = [bpy.context.view_layer.layer_collection]
    while pending:
        layer = pending.pop()
        if layer.collection == collection:
            bpy.context.view_layer.active_layer_collection = layer
            return layer
        pending += layer.children
    raise LookupError(collection.name)


def new_collection(name: str, parent: Any = None) -> Any:
    made = bpy.data.collections.new(name)
    (parent or bpy.context.scene.collection).children.link(made)
    return made


def write_library() -> None:
    empty_file()
    new_object("Library Object", new_collection("Library Collection"))
    bpy.data.scenes.new("Library Scene").use_fake_user = True
    bpy.ops.wm.save_as_mainfile(filepath=str(LIBRARY), copy=True)  # Blender 5.2 crashes on libraries.write of a scene


def link_library() -> Any:
    with bpy.data.libraries.load(str(LIBRARY), link=True) as (_, wanted):
        wanted.collections, wanted.scenes = ["Library Collection"], ["Library Scene"]
    linked = next(one for one in bpy.data.collections if one.library is not None)
    bpy.context.scene.collection.children.link(linked)
    return linked


# --- the active collection


def plain() -> None:
    activate(new_collection("Props"))


def excluded() -> None:
    activate(new_collection("Props")).exclude = True


def hidden_in_view_layer() -> None:
    activate(new_collection("Props")).hide_viewport = True


def disabled_in_viewports() -> None:
    props = new_collection("Props")
    activate(props)
    props.hide_viewport = True


def below_a_hidden_one() -> None:
    parent = new_collection("Parent")
    activate(new_collection("Props", parent))
    parent.hide_viewport = True


def below_an_excluded_one() -> None:
    parent = new_collection("Parent")
    activate(new_collection("Props", parent))
    bpy.context.view_layer.layer_collection.children["Parent"].exclude = True


def linked() -> None:
    activate(link_library())


def overridden() -> None:
    activate(link_library().override_hierarchy_create(bpy.context.scene, bpy.context.view_layer))


def also_in_another_scene() -> None:
    props = new_collection("Props")
    bpy.data.scenes.new("Other").collection.children.link(props)
    activate(props)


ACTIVE_COLLECTIONS: dict[str, Callable[[], None]] = {
    made.__name__: made
    for made in (
        plain, excluded, hidden_in_view_layer, disabled_in_viewports, below_a_hidden_one, below_an_excluded_one, linked,
        overridden, also_in_another_scene,
    )
}  # fmt: skip


def facts_of(made: Any) -> dict[str, Any]:
    bpy.context.view_layer.update()
    return {
        "collections": sorted(collection.name for collection in made.users_collection),
        "editable": all(placement.is_editable(collection) for collection in made.users_collection),
        "visible": made.visible_get(),
        "selected": [one.name for one in bpy.context.selected_objects] == [made.name],
        "active": bpy.context.view_layer.objects.active == made,
    }


def in_each_active_collection() -> dict[str, Any]:
    found = {}
    for name, prepare in ACTIVE_COLLECTIONS.items():
        empty_file()
        prepare()
        found[name] = facts_of(import_mesh.import_mesh(JOB, tetrahedron(), "tcp://x:1"))
    return found


def copy_of_a_source_in_each_collection() -> dict[str, Any]:
    """New Object beside a source whose collection cannot take it, or is not visible from here."""
    found = {}
    for name in ("linked", "overridden"):
        empty_file()
        ACTIVE_COLLECTIONS[name]()
        source = next(one for one in bpy.context.scene.objects if one.type == "MESH")
        bpy.context.view_layer.layer_collection.children[0].exclude = False
        found[name] = refined(source, False)
    empty_file()
    props, elsewhere = new_collection("Props"), bpy.data.collections.new("Elsewhere")
    source = new_object("Source", props)
    elsewhere.objects.link(source)
    bpy.data.scenes.new("Other").collection.children.link(elsewhere)
    found["also_in_another_scene"] = refined(source, False)
    return found


# --- refinement


def refined(source: Any, as_shape_key: bool) -> dict[str, Any]:
    before = set(bpy.data.objects)
    sent = object_mesh.extract_mesh(bpy.context, source, as_shape_key)
    text = import_refined.import_refined(JOB, tetrahedron(facts=sent.facts), "tcp://x:1")
    made = [one for one in bpy.data.objects if one not in before]
    return {"text": text, "keys": keys_of(source)} | (facts_of(made[0]) if made else {"visible": None})


def keys_of(owner: Any) -> list[str]:
    return [key.name for key in owner.data.shape_keys.key_blocks] if owner.data.shape_keys else []


def shape_keys() -> dict[str, Any]:
    found = {}
    for others in (0, 1, 3):
        empty_file()
        source = new_object("Source", bpy.context.scene.collection)
        copies = [bpy.data.objects.new(f"Copy {n}", source.data) for n in range(others)]
        for copy in copies:
            bpy.context.scene.collection.objects.link(copy)
        source.data.use_fake_user = not others  # a fake user is no object that shares the mesh
        own = source.data.name
        report = refined(source, True)
        found[f"shared by {others}"] = report | {
            "others": [keys_of(copy) for copy in copies],
            "kept": source.data.name == own,
            "meshes": len(bpy.data.meshes),
        }
    for name in ("linked", "overridden"):
        empty_file()
        ACTIVE_COLLECTIONS[name]()
        source = next(one for one in bpy.context.scene.objects if one.type == "MESH")
        found[name] = refined(source, True)
    empty_file()
    own_mesh = new_object("Source", new_collection("Props"))
    own_mesh.data = linked_mesh()
    found["linked mesh"] = refined(own_mesh, True)
    return found


def linked_mesh() -> Any:
    link_library()
    return next(one for one in bpy.data.meshes if one.library is not None)


# --- refused imports


def inventory() -> dict[str, list[str]]:
    """Names of all datablocks by kind, attributes of all meshes, and the selection."""
    kinds = [kind for kind in dir(bpy.data) if isinstance(getattr(bpy.data, kind), bpy.types.bpy_prop_collection)]
    found = {kind: sorted(one.name for one in getattr(bpy.data, kind)) for kind in kinds}
    found["attributes"] = sorted(f"{data.name}.{one.name}" for data in bpy.data.meshes for one in data.attributes)
    active = bpy.context.view_layer.objects.active
    found["selection"] = sorted(one.name for one in bpy.context.selected_objects)
    found["active"] = [active.name if active is not None else ""]
    return found


def fail(*_: Any, **__: Any) -> None:
    raise RuntimeError("a failure in the middle")


def refusals() -> dict[str, Any]:
    texture = mesh_file.Texture(
        b"\x89PNG\r\n\x1a\nno image at all", np.zeros((4, 2), np.float32), np.zeros((4, 3), np.int32)
    )
    flat = np.array([[0, 0, 1], [1, 1, 2]], np.int32)
    empty = mesh_file.MeshFile(
        np.eye(3, dtype=np.float32), flat, np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)
    )
    cases: dict[str, tuple[Any, Any, str]] = {
        "unreadable texture": (None, tetrahedron(texture), "OBJECT"),
        "only degenerate faces": (None, empty, "OBJECT"),
        "material": ((import_mesh, "build_material"), tetrahedron(), "OBJECT"),
        "linking": ((placement, "link_to_scene"), tetrahedron(), "OBJECT"),
        "local view": ((placement, "_join_local_views"), tetrahedron(), "OBJECT"),
        "asset": ((import_mesh, "mark_as_asset"), tetrahedron(), "OBJECT"),
        "refined copy": ((import_refined, "_match_transform"), tetrahedron(), "COPY"),
        "colors of a copy": ((import_mesh, "build_material"), tetrahedron(), "COPY"),
        "shape key": ((import_mesh, "set_vertex_colors"), tetrahedron(), "SHAPE_KEY"),
        "shape key on a shared mesh": ((import_mesh, "set_vertex_colors"), tetrahedron(), "SHARED"),
        "linked scene": (None, tetrahedron(), "LINKED SCENE"),
    }
    found = {}
    for name, (broken, mesh, kind) in cases.items():
        empty_file()
        source = new_object("Source", new_collection("Props"))
        source.select_set(True)
        bpy.context.view_layer.objects.active = source
        if kind == "SHARED":
            bpy.context.scene.collection.objects.link(bpy.data.objects.new("Copy", source.data))
        if kind == "LINKED SCENE":
            link_library()
            bpy.context.window_manager.windows[0].scene = bpy.data.scenes["Library Scene"]
        facts = object_mesh.extract_mesh(bpy.context, source, False).facts
        if kind in ("SHAPE_KEY", "SHARED"):
            facts["source_result"] = "SHAPE_KEY"
        before = inventory()
        original = getattr(*broken) if broken else None
        if broken:
            setattr(*broken, fail)
        try:
            if kind in ("OBJECT", "LINKED SCENE"):
                import_mesh.import_mesh(JOB, mesh, "tcp://x:1", as_asset=True)
            else:
                import_refined.import_refined(JOB, tetrahedron(facts=facts), "tcp://x:1")
            error = ""
        except (ValueError, RuntimeError) as raised:
            error = str(raised)
        finally:
            if broken:
                setattr(*broken, original)
        after = inventory()
        changes = {one: [before[one], after[one]] for one in before if before[one] != after[one]}
        found[name] = {"error": error, "changes": changes}
    return found


write_library()
report = {
    "active collections": in_each_active_collection(),
    "copies": copy_of_a_source_in_each_collection(),
    "shape keys": shape_keys(),
    "refusals": refusals(),
}
print("REPORT " + json.dumps(report))
