# SPDX-License-Identifier: GPL-3.0-or-later
"""A refined mesh comes back: as a shape key of the object that was sent, as a copy of it, or by itself where it is gone."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import bpy
import numpy as np

from . import compat, import_mesh, labels, object_mesh
from .shared.mesh_file import MeshFile
from .shared.messages import JobSummary, PreviewFrame


@dataclass(frozen=True)
class Origin:
    """Where a mesh was taken from."""

    name: str
    mark: str
    turn: np.ndarray  # (3, 3), with which it was sent
    place: tuple[float, float, float]
    as_shape_key: bool
    colors: str  # the color attribute that was sent; "": none


def origin_of(facts: dict[str, Any]) -> Origin | None:
    """What the facts of a mesh say of it; None where they say nothing that makes sense: they come from the server."""
    try:
        turn = np.array(json.loads(facts["source_matrix"]), np.float64).reshape(3, 3)
        place = np.array(json.loads(facts["source_place"]), np.float64).reshape(3)
    except (KeyError, TypeError, ValueError):
        return None
    if not object_mesh.usable(turn) or not np.isfinite(place).all():
        return None
    name, mark, colors = (str(facts.get(f"source_{fact}", "")) for fact in ("object", "mark", "colors"))
    return Origin(name, mark, turn, tuple(place), facts.get("source_result") == "SHAPE_KEY", colors)


def deliver(
    job: JobSummary, mesh: MeshFile, address: str, as_asset: bool = False, picture: PreviewFrame | None = None
) -> str:
    """Put the result into the scene as one undo step; what was done, in a sentence. Raises ValueError for an empty mesh."""
    if not len(mesh.vertices) or not len(mesh.faces):
        raise ValueError("The mesh is empty")
    return compat.with_window(bpy.context, lambda: _deliver(job, mesh, address, as_asset, picture))


def _deliver(job: JobSummary, mesh: MeshFile, address: str, as_asset: bool, picture: PreviewFrame | None) -> str:
    context, origin = bpy.context, origin_of(mesh.facts)
    import_mesh.leave_edit_mode(context)
    prompt = labels.short(job.prompt, 40)
    source = object_mesh.find(context.scene, origin.mark, origin.name) if origin is not None else None
    fault = _shape_key_fault(source, origin, mesh) if origin is not None and origin.as_shape_key else ""
    made = None
    if source is not None and origin.as_shape_key and not fault:
        told = _as_shape_key(source, origin, job, mesh)
    else:
        made = _copy(context, source, origin, job, mesh) if source is not None and not origin.as_shape_key else None
        alone = made is None
        if alone:
            made = _by_itself(context, origin, job, mesh)
        for key, value in import_mesh.provenance(job, mesh.facts, address).items():
            made[key] = value
        import_mesh.put_into_scene(context, made, _collections(context, None if alone else source))
        if not alone:
            _set_straight(context, made, source)
        if as_asset:
            import_mesh.mark_as_asset(made, job, picture)
        told = f"Imported “{prompt}” as a new object"
        if fault:
            told = f"{fault}, so “{prompt}” is a new object"
        elif alone and origin is not None:
            told = f"“{origin.name}” is not there as it was sent, so “{prompt}” is an object by itself, in triangles"
    import_mesh.push_undo(f"Refine: {prompt}")
    return told


def _shape_key_fault(source: Any, origin: Origin, mesh: MeshFile) -> str:
    """Why the result cannot be a shape key of the object, in half a sentence; "" when it can."""
    if source is None:
        return f"“{origin.name}” is not in this scene any more"
    if source.library is not None or source.data.library is not None:
        return f"“{source.name}” is linked from another file"
    if source.mode != "OBJECT":
        return f"“{source.name}” is being edited"
    if len(source.data.vertices) != len(mesh.vertices):
        return f"“{source.name}” had {len(mesh.vertices)} vertices when it was sent and has {len(source.data.vertices)} now"
    return ""


def _local(origin: Origin, mesh: MeshFile) -> np.ndarray:
    """(V, 3) the result in the coordinates of the object that was sent."""
    return mesh.vertices.astype(np.float64) @ np.linalg.inv(origin.turn).T


def _as_shape_key(source: Any, origin: Origin, job: JobSummary, mesh: MeshFile) -> str:
    if source.data.shape_keys is None:
        source.shape_key_add(name="Basis", from_mix=False)
    key = source.shape_key_add(name=f"Dreamwright: {labels.short(job.prompt, 40)}", from_mix=False)
    key.data.foreach_set("co", _local(origin, mesh).astype(np.float32).ravel())
    key.value = 1.0
    source.active_shape_key_index = len(source.data.shape_keys.key_blocks) - 1
    told = f"“{source.name}” has the shape key “{key.name}”"
    if _has_new_colors(job):
        had = object_mesh.shown_colors(source.data)
        shown = had.name if had is not None else ""  # a new attribute moves the others in memory
        attributes = source.data.color_attributes
        attribute = attributes.new(key.name, "FLOAT_COLOR", "POINT")
        told += f" and the color attribute “{attribute.name}”"
        _set_colors(attribute, mesh.albedo)
        if shown:
            attributes.active_color = attributes[shown]
    source.data.update()
    return told


def _has_new_colors(job: JobSummary) -> bool:
    return job.settings.get("refine.colors", True) not in (False, "false")


def _set_colors(attribute: Any, albedo: np.ndarray) -> None:
    colors = np.ones((len(albedo), 4), np.float32)
    colors[:, :3] = albedo
    attribute.data.foreach_set("color", colors.ravel())


def _copy(context: Any, source: Any, origin: Origin, job: JobSummary, mesh: MeshFile) -> Any:
    """A new object with what is seen of the source, its vertices moved; None when that is not what was sent any more."""
    depsgraph = context.evaluated_depsgraph_get()
    data = bpy.data.meshes.new_from_object(
        source.evaluated_get(depsgraph), preserve_all_data_layers=True, depsgraph=depsgraph
    )
    data.calc_loop_triangles()
    if (len(data.vertices), len(data.loop_triangles)) != (len(mesh.vertices), len(mesh.faces)):
        bpy.data.meshes.remove(data)
        return None
    data.name = labels.short(job.prompt, 50) or source.name
    data.vertices.foreach_set("co", _local(origin, mesh).astype(np.float32).ravel())
    old_normals = data.attributes.get("custom_normal")
    if old_normals is not None:
        data.attributes.remove(old_normals)
    if _has_new_colors(job):
        _color(data, source, origin, mesh)
    data.update()
    return bpy.data.objects.new(data.name, data)


def _color(data: Any, source: Any, origin: Origin, mesh: MeshFile) -> None:
    """The colors of the result in the attribute that was sent, or in one of their own; the materials stay where they show it."""
    attribute = data.color_attributes.get(origin.colors) if origin.colors else None
    if attribute is None:
        attribute = data.color_attributes.new(import_mesh.ALBEDO, "FLOAT_COLOR", "POINT")
        data.color_attributes.active_color = attribute
        data.color_attributes.render_color_index = data.color_attributes.active_color_index
    if attribute.domain == "POINT":
        _set_colors(attribute, mesh.albedo)
    else:
        # By how much its vertex changed, so that a border between two colors at one vertex stays a border.
        values = object_mesh.taken(attribute.data, "color", np.float32, 4)
        corners = object_mesh.taken(data.loops, "vertex_index", np.int32, 1)[:, 0]
        values[:, :3] += (mesh.albedo - object_mesh.by_vertex(data, attribute).clip(0, 1))[corners]
        attribute.data.foreach_set("color", values.clip(0, 1).astype(np.float32).ravel())
    if not any(_shows(slot.material, attribute.name) for slot in source.material_slots):
        data.materials.clear()
        data.materials.append(import_mesh.build_material(data.name, attribute=attribute.name))
        data.polygons.foreach_set("material_index", np.zeros(len(data.polygons), np.int32))


def _shows(material: Any, attribute: str) -> bool:
    """Whether a material reads a color attribute."""
    nodes = material.node_tree.nodes if material is not None and material.node_tree else ()
    return any(
        (node.type == "VERTEX_COLOR" and node.layer_name in ("", attribute))
        or (node.type == "ATTRIBUTE" and node.attribute_name == attribute)
        for node in nodes
    )


def _by_itself(context: Any, origin: Origin | None, job: JobSummary, mesh: MeshFile) -> Any:
    """An object of the result's own triangles, where the source stood."""
    name = labels.short(job.prompt, 50) or "Mesh"
    data = import_mesh.build_mesh(name, replace(mesh, texture=None))
    data.materials.append(import_mesh.build_material(name))
    made = bpy.data.objects.new(name, data)
    made.location = origin.place if origin is not None else context.scene.cursor.location
    return made


def _set_straight(context: Any, made: Any, source: Any) -> None:
    """Stand it where the source stands now; what no object's own transform can hold, as a shear by parents, goes into its vertices."""
    made.matrix_world = source.matrix_world
    context.view_layer.update()
    own, wanted = np.array(made.matrix_world)[:3, :3], np.array(source.matrix_world)[:3, :3]
    if not np.allclose(own, wanted, rtol=0, atol=1e-5 * np.linalg.norm(wanted)) and object_mesh.usable(own):
        places = object_mesh.taken(made.data.vertices, "co", np.float32, 3).astype(np.float64)
        made.data.vertices.foreach_set("co", (places @ (np.linalg.inv(own) @ wanted).T).astype(np.float32).ravel())
        made.data.update()


def _collections(context: Any, source: Any) -> list[Any]:
    of_source = [one for one in source.users_collection if one.library is None] if source is not None else []
    return of_source or [context.collection or context.scene.collection]
