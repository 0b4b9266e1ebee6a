# SPDX-License-Identifier: GPL-3.0-or-later
"""A finished prop as an FBX file: an LOD group with its levels, and its collision hulls, by Blender's own exporter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import bpy
from mathutils import Vector


def has_exporter() -> bool:
    """Whether Blender's FBX exporter, an add-on that comes with it, is switched on."""
    return hasattr(bpy.types, "EXPORT_SCENE_OT_fbx")


def write_fbx(path: str, name: str, levels: Mapping[str, Any], hulls: Mapping[str, Any]) -> None:
    """Write objects under these names to an FBX file; `levels` from fine to coarse, `name` is that of their group.

    Every object is at the file's origin, with the rotation and the scale of the finest level: where it lies in the
    scene, and whether it is hidden there, does not matter. The scene is left as it was. Raises RuntimeError.
    """
    turn = next(iter(levels.values())).matrix_world.copy()
    turn.translation = Vector((0.0, 0.0, 0.0))
    is_group = len(levels) > 1
    with _free_names([*levels, *hulls, name]), _stand_ins({**levels, **hulls}, turn) as made:
        if is_group:
            # Blender writes the FBX type that this property names; engines read the group's children as its levels.
            group = bpy.data.objects.new(name, None)
            group["fbx_type"] = "LodGroup"
            made.append(group)
            bpy.context.scene.collection.objects.link(group)
            for level in made[: len(levels)]:
                level.parent = group
        bpy.context.view_layer.update()
        with _image_files(made), bpy.context.temp_override(selected_objects=made):
            done = bpy.ops.export_scene.fbx(
                filepath=path, use_selection=True, use_custom_props=True, mesh_smooth_type="OFF", use_tspace=True,
                path_mode="COPY", embed_textures=True, add_leaf_bones=False, bake_anim=False,
                apply_scale_options="FBX_SCALE_UNITS", object_types={"MESH", "EMPTY"},
            )  # fmt: skip
    if "FINISHED" not in done:
        raise RuntimeError("the exporter was cancelled")


@contextmanager
def _free_names(names: list[str]) -> Iterator[None]:
    """Have no object of this file by these names in the block; those that there are have another one meanwhile."""
    holders = [(name, bpy.data.objects.get((name, None))) for name in names]
    aside = [(name, holder) for name, holder in holders if holder is not None]
    for name, holder in aside:
        holder.name = f"{name[:40]} aside"
    try:
        yield
    finally:
        for name, holder in aside:
            holder.name = name


@contextmanager
def _image_files(objects: list[Any]) -> Iterator[None]:
    """Have the packed images of the objects' materials file names in the block.

    An FBX file tells images apart by them, and images of a .glb have none.
    """
    materials = {slot.material for one in objects for slot in one.material_slots if slot.material is not None}
    nodes = [node for one in materials if one.node_tree is not None for node in one.node_tree.nodes]
    images = {node.image for node in nodes if node.type == "TEX_IMAGE" and node.image is not None}
    nameless = [one for one in images if not one.filepath_raw]
    for one in nameless:
        one.filepath_raw = f"//{one.name}.png"
    try:
        yield
    finally:
        for one in nameless:
            one.filepath_raw = ""


@contextmanager
def _stand_ins(objects: Mapping[str, Any], turn: Any) -> Iterator[list[Any]]:
    """Copies of objects that share their meshes, visible, at the origin and without what moves them.

    What is added to the list goes with them at the end of the block.
    """
    made: list[Any] = []
    try:
        for name, source in objects.items():
            one = source.copy()
            made.append(one)
            one.name = name
            one.animation_data_clear()
            one.constraints.clear()
            one.parent, one.hide_viewport = None, False
            one.matrix_world = turn
            bpy.context.scene.collection.objects.link(one)
        yield made
    finally:
        for one in made:
            bpy.data.objects.remove(one)
