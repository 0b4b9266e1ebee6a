# SPDX-License-Identifier: GPL-3.0-or-later
"""The object that is finished, as a glTF file: modifiers applied, with its normals, colors and textures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from . import compat
from .wording import say


def _as_it_looks(context: Any, source: Any) -> Any:
    """An object with the evaluated mesh of another: Blender's exporter writes a mesh with shape keys in its basis."""
    depsgraph = context.evaluated_depsgraph_get()
    data = bpy.data.meshes.new_from_object(
        source.evaluated_get(depsgraph), preserve_all_data_layers=True, depsgraph=depsgraph
    )
    made = bpy.data.objects.new(source.name, data)
    made.matrix_world = source.matrix_world
    context.scene.collection.objects.link(made)
    context.view_layer.update()
    return made


def write_source(context: Any, source: Any, path: Path) -> dict[str, Any]:
    """Write the object alone, in world coordinates; what the import needs to know of it. Raises ValueError, OSError."""
    evaluated = source.evaluated_get(context.evaluated_depsgraph_get())
    data = evaluated.to_mesh()
    try:
        if not len(data.polygons):
            raise ValueError(say("“{object}” has no faces; choose a mesh with faces", object=source.name))
    finally:
        evaluated.to_mesh_clear()
    layer = context.view_layer
    selected, active = list(context.selected_objects), layer.objects.active
    written = _as_it_looks(context, source) if source.data.shape_keys is not None else source
    try:
        for one in selected:
            one.select_set(False)
        written.select_set(True)
        layer.objects.active = written
        with compat.numpy_bool():
            bpy.ops.export_scene.gltf(
                filepath=str(path), export_format="GLB", use_selection=True, export_apply=True,
                export_animations=False, export_morph=False, export_skins=False, export_yup=True,
            )  # fmt: skip
    except RuntimeError as error:
        raise ValueError(
            say("Blender could not export “{object}”: {error}", object=source.name, error=compat.operator_fault(error))
        ) from error
    finally:
        for one in list(context.selected_objects):
            one.select_set(False)
        for one in selected:
            one.select_set(True)
        layer.objects.active = active
        if written != source:
            bpy.data.meshes.remove(written.data)  # and the object with it
    return {"location": list(source.matrix_world.translation), "object": source.name}
