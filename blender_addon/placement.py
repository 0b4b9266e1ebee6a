# SPDX-License-Identifier: GPL-3.0-or-later
"""Linking a new object into the scene so that it is visible, and leaving nothing behind when an import fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import bpy

from .wording import say

_KINDS = ("objects", "meshes", "materials", "images", "node_groups", "textures")  # objects first: they use the others


@contextmanager
def discard_on_error(layer: Any) -> Iterator[None]:
    """Remove all datablocks made in the block, and restore the view layer's selection, when it raises an exception."""
    before = {kind: set(getattr(bpy.data, kind)) for kind in _KINDS}
    active, selected = layer.objects.active, list(layer.objects.selected)
    try:
        yield
    except BaseException:
        for kind in _KINDS:
            datablocks = getattr(bpy.data, kind)
            for made in [one for one in datablocks if one not in before[kind]]:
                datablocks.remove(made)
        for one in selected:
            one.select_set(True, view_layer=layer)
        layer.objects.active = active
        raise


def is_editable(datablock: Any) -> bool:
    """Whether a datablock belongs to this file: neither linked from a library nor an override of a linked one."""
    return datablock.library is None and datablock.override_library is None


def check_scene(context: Any) -> None:
    """Raise ValueError when no object can be added to the scene."""
    scene = context.scene
    if not is_editable(scene) or not is_editable(scene.collection):
        raise ValueError(
            say("the scene “{name}” is linked from another file; switch to a scene of this file first", name=scene.name)
        )


def target_collections(context: Any, preferred: Iterable[Any]) -> list[Any]:
    """The collections of `preferred` in which a new object can be stored and is visible; else the scene's own one."""
    visible = _visible_collections(context.view_layer.layer_collection)
    return [one for one in preferred if one in visible and is_editable(one)] or [context.scene.collection]


def _visible_collections(layer_collection: Any) -> list[Any]:
    found = [layer_collection.collection] if layer_collection.is_visible and not layer_collection.exclude else []
    for child in layer_collection.children:
        found += _visible_collections(child)
    return found


def collection_clause(context: Any, made: Any) -> str:
    """Why a new object is not in the active collection, as a clause; "" when it is."""
    active = context.collection
    if active is None or active in list(made.users_collection):
        return ""
    if active.library is not None:
        why = say("is linked from another file")
    elif active.override_library is not None:
        why = say("is an override of one in another file")
    else:
        why = say("is hidden or excluded")
    return say("it is in the scene's own collection, as “{name}” {why}", name=active.name, why=why)


def link_to_scene(context: Any, made: Any, preferred: Iterable[Any]) -> None:
    """Link an object to the usable collections of `preferred`, or to the scene; select it alone and make it active.

    It joins the local view of all 3D views, where it would be hidden otherwise.
    """
    for collection in target_collections(context, preferred):
        collection.objects.link(made)
    layer = context.view_layer
    layer.update()
    for selected in list(layer.objects.selected):
        selected.select_set(False, view_layer=layer)
    made.select_set(True, view_layer=layer)
    layer.objects.active = made
    _join_local_views(context, made)


def _join_local_views(context: Any, made: Any) -> None:
    for window in context.window_manager.windows:
        if made.name not in window.view_layer.objects:
            continue
        for area in window.screen.areas:
            for space in area.spaces:
                if space.type == "VIEW_3D" and space.local_view is not None:
                    made.local_view_set(space, True)


def leave_edit_mode(context: Any) -> None:
    """Put the active object of a stage that is shown into Object Mode, in which its data may be changed.

    That is an undo step of its own: a step of Sculpt Mode cannot undo what came to the scene after it.
    """
    active = context.view_layer.objects.active
    if active is not None and active.mode != "OBJECT":
        bpy.ops.object.mode_set(mode="OBJECT")
        push_undo(say("Object Mode"))


def push_undo(message: str) -> None:
    """End an undo step; changes through the data API do not make one by themselves."""
    bpy.ops.ed.undo_push(message=message)
