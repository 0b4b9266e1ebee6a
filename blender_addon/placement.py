# SPDX-License-Identifier: GPL-3.0-or-later
"""Linking a new object into the scene so that it is visible, and leaving nothing behind when an import fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import bpy

_KINDS = ("objects", "meshes", "materials", "images", "node_groups", "textures")  # objects first: they use the others


@contextmanager
def discard_on_error() -> Iterator[None]:
    """Remove all datablocks made in the block, and restore the selection, when it raises an exception."""
    before = {kind: set(getattr(bpy.data, kind)) for kind in _KINDS}
    layer = bpy.context.view_layer
    active, selected = layer.objects.active, list(bpy.context.selected_objects)
    try:
        yield
    except BaseException:
        for kind in _KINDS:
            datablocks = getattr(bpy.data, kind)
            for made in [one for one in datablocks if one not in before[kind]]:
                datablocks.remove(made)
        for one in selected:
            one.select_set(True)
        layer.objects.active = active
        raise


def is_editable(datablock: Any) -> bool:
    """Whether a datablock belongs to this file: neither linked from a library nor an override of a linked one."""
    return datablock.library is None and datablock.override_library is None


def check_scene(context: Any) -> None:
    """Raise ValueError when no object can be added to the scene."""
    scene = context.scene
    if not is_editable(scene) or not is_editable(scene.collection):
        raise ValueError(f"the scene “{scene.name}” is linked from another file; switch to a scene of this file first")


def target_collections(context: Any, preferred: Iterable[Any]) -> list[Any]:
    """The collections of `preferred` in which a new object can be stored and is visible; else the scene's own one."""
    visible = _visible_collections(context.view_layer.layer_collection)
    return [one for one in preferred if one in visible and is_editable(one)] or [context.scene.collection]


def _visible_collections(layer_collection: Any) -> list[Any]:
    found = [layer_collection.collection] if layer_collection.is_visible and not layer_collection.exclude else []
    for child in layer_collection.children:
        found += _visible_collections(child)
    return found


def link_to_scene(context: Any, made: Any, preferred: Iterable[Any]) -> None:
    """Link an object to the usable collections of `preferred`, or to the scene; select it alone and make it active.

    It joins the local view of all 3D views, where it would be hidden otherwise.
    """
    for collection in target_collections(context, preferred):
        collection.objects.link(made)
    context.view_layer.update()
    for selected in list(context.selected_objects):
        selected.select_set(False)
    made.select_set(True)
    context.view_layer.objects.active = made
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
    """Put the active object into Object Mode, in which its data may be changed."""
    active = context.view_layer.objects.active
    if active is not None and active.mode != "OBJECT":
        bpy.ops.object.mode_set(mode="OBJECT")


def push_undo(message: str) -> None:
    """End an undo step; changes through the data API do not make one by themselves."""
    bpy.ops.ed.undo_push(message=message)
