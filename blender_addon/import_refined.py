# SPDX-License-Identifier: GPL-3.0-or-later
"""Import of a refined mesh: as a shape key of its source object, as a copy of it, or alone when it has gone."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import bpy
import numpy as np

from . import compat, import_mesh, import_places, labels, object_mesh, placement, provenance
from .shared.mesh_file import MeshFile
from .shared.messages import JobSummary, PreviewFrame
from .wording import say


@dataclass(frozen=True)
class Source:
    """The object that was sent, as the facts of the mesh file describe it."""

    name: str
    source_id: str
    linear: np.ndarray  # (3, 3), of its world matrix
    location: tuple[float, ...]
    as_shape_key: bool
    colors: str  # name of the color attribute that was sent; "": none


def source_of(facts: dict[str, Any]) -> Source | None:
    """Read the untrusted facts of a mesh file; None when they are missing or invalid."""
    try:
        linear = np.array(json.loads(facts["source_matrix"]), np.float64).reshape(3, 3)
        location = np.array(json.loads(facts["source_location"]), np.float64).reshape(3)
    except (KeyError, TypeError, ValueError):
        return None
    if not object_mesh.is_invertible(linear) or not np.isfinite(location).all():
        return None
    name, source_id, colors = (str(facts.get(f"source_{fact}", "")) for fact in ("object", "id", "colors"))
    as_shape_key = facts.get("source_result") == "SHAPE_KEY"
    return Source(name, source_id, linear, tuple(location.tolist()), as_shape_key, colors)


def import_refined(
    job: JobSummary,
    mesh: MeshFile,
    address: str,
    as_asset: bool = False,
    thumbnail: PreviewFrame | None = None,
    stage: import_places.Stage | None = None,
) -> str:
    """Import a refined mesh as one undo step; a sentence that says what was done.

    Raises ValueError for an empty mesh or a linked scene, and then leaves nothing behind.
    """
    import_mesh.check_mesh(mesh)
    return compat.with_window(bpy.context, lambda: _import(job, mesh, address, as_asset, thumbnail, stage))


def _import(
    job: JobSummary,
    mesh: MeshFile,
    address: str,
    as_asset: bool,
    thumbnail: PreviewFrame | None,
    stage: import_places.Stage | None,
) -> str:
    context, source = stage or import_places.stage_here(), source_of(mesh.facts)
    prompt = labels.short(job.prompt, 40)
    placement.leave_edit_mode(context)
    owner = object_mesh.find_source(context.scene, source.source_id, source.name) if source is not None else None
    fault = ""
    if source is not None and source.as_shape_key:
        fault = _shape_key_fault(owner, source, mesh)
        if not fault:
            done = _add_shape_key(owner, source, job, mesh)
            placement.push_undo(say("Refine: {prompt}", prompt=prompt))
            return done
    placement.check_scene(context)
    with placement.discard_on_error(context.view_layer):
        made = None
        if source is not None and owner is not None and not source.as_shape_key:
            made = _copy_object(context, owner, source, job, mesh)
        is_copy = made is not None
        if made is None:
            made = _standalone_object(context, source, job, mesh)
        import_mesh.set_properties(made, provenance.properties_of(job, mesh.facts, address))
        preferred = list(owner.users_collection) if is_copy and owner is not None else []
        placement.link_to_scene(context, made, [*preferred, *([context.collection] if not preferred else [])])
        if is_copy:
            _match_transform(context, made, owner)
        if as_asset:
            import_mesh.mark_as_asset(made, job, thumbnail)
    placement.push_undo(say("Refine: {prompt}", prompt=prompt))
    if fault:
        return say("{fault}, so “{prompt}” is a new object", fault=fault, prompt=prompt)
    if source is not None and not is_copy:
        return say(
            "“{object}” is missing or has changed, so “{prompt}” is a separate object, in triangles",
            object=source.name,
            prompt=prompt,
        )
    return say("Imported “{prompt}” as a new object", prompt=prompt)


def _shape_key_fault(owner: Any, source: Source, mesh: MeshFile) -> str:
    """Why the result cannot become a shape key of the object, as a clause; "" when it can."""
    if owner is None:
        return say("“{object}” is no longer in this scene", object=source.name)
    if owner.library is not None:
        return say("“{object}” is linked from another file", object=owner.name)
    if owner.data.library is not None:
        return say("The mesh of “{object}” is linked from another file", object=owner.name)
    keys = owner.data.shape_keys
    if not placement.is_editable(owner) or not placement.is_editable(owner.data):
        return say("“{object}” is an override of an object in another file", object=owner.name)
    if keys is not None and not placement.is_editable(keys):
        return say("The shape keys of “{object}” are linked from another file", object=owner.name)
    if owner.mode != "OBJECT":
        return say("“{object}” is being edited", object=owner.name)
    if len(owner.data.vertices) != len(mesh.vertices):
        now = len(owner.data.vertices)
        return say(
            "“{object}” had {before} vertices when it was sent and has {now} now",
            object=owner.name,
            before=len(mesh.vertices),
            now=now,
        )
    return ""


def _object_space(source: Source, mesh: MeshFile) -> np.ndarray:
    """(V, 3) float32 vertices of the result in the coordinates of the object that was sent."""
    return (mesh.vertices.astype(np.float64) @ np.linalg.inv(source.linear).T).astype(np.float32)


def _add_shape_key(owner: Any, source: Source, job: JobSummary, mesh: MeshFile) -> str:
    sharing = [one.name for one in bpy.data.objects if one != owner and one.data == owner.data]
    shared = owner.data
    if sharing:
        owner.data = shared.copy()  # a shape key on the shared mesh would deform the other objects as well
    try:
        done = _write_shape_key(owner, source, job, mesh)
    except BaseException:
        if sharing:
            own = owner.data
            owner.data = shared
            bpy.data.meshes.remove(own)
        raise
    if sharing:
        others = f"“{sharing[0]}”" if len(sharing) == 1 else say("{count} other objects", count=len(sharing))
        done += say("; it shared its mesh with {others} and now has a copy of its own", others=others)
    return done


def _write_shape_key(owner: Any, source: Source, job: JobSummary, mesh: MeshFile) -> str:
    vertices = _object_space(source, mesh)
    had_keys, made = owner.data.shape_keys is not None, []
    try:
        if not had_keys:
            made.append(owner.shape_key_add(name="Basis", from_mix=False))
        key = owner.shape_key_add(name=f"Dreamwright: {labels.short(job.prompt, 40)}", from_mix=False)
        made.append(key)
        key.data.foreach_set("co", vertices.ravel())
        key.value = 1.0
        done = say("“{object}” has the shape key “{name}”", object=owner.name, name=key.name)
        if _has_new_colors(job):
            attribute = _add_colors(owner.data, key.name, mesh.albedo)
            done += say(
                "; its colors are in the color attribute “{attribute}”, which no material shows yet",
                attribute=attribute,
            )
    except BaseException:
        for key in reversed(made):
            owner.shape_key_remove(key)
        raise
    owner.active_shape_key_index = len(owner.data.shape_keys.key_blocks) - 1
    owner.data.update()
    return done


def _add_colors(data: Any, name: str, albedo: np.ndarray) -> str:
    """Add a color attribute beside the mesh's own, which stays the active one; its name."""
    active = object_mesh.active_colors(data)
    active_name = active.name if active is not None else ""  # a new attribute moves the others in memory
    added = data.color_attributes.new(name, "FLOAT_COLOR", "POINT")
    added_name = added.name
    try:
        import_mesh.set_vertex_colors(added, albedo)
        if active_name:
            data.color_attributes.active_color = data.color_attributes[active_name]
    except BaseException:
        data.color_attributes.remove(data.color_attributes[added_name])
        raise
    return added_name


def _has_new_colors(job: JobSummary) -> bool:
    return job.settings.get("refine.colors", True) not in (False, "false")


def _copy_object(context: Any, owner: Any, source: Source, job: JobSummary, mesh: MeshFile) -> Any:
    """A new object with the evaluated mesh of `owner` and the result's vertices; None when its mesh has changed."""
    depsgraph = context.evaluated_depsgraph_get()
    data = bpy.data.meshes.new_from_object(
        owner.evaluated_get(depsgraph), preserve_all_data_layers=True, depsgraph=depsgraph
    )
    data.calc_loop_triangles()
    if (len(data.vertices), len(data.loop_triangles)) != (len(mesh.vertices), len(mesh.faces)):
        bpy.data.meshes.remove(data)
        return None
    data.name = labels.short(job.prompt, 50) or owner.name
    data.vertices.foreach_set("co", _object_space(source, mesh).ravel())
    custom_normals = data.attributes.get("custom_normal")
    if custom_normals is not None:
        data.attributes.remove(custom_normals)
    if _has_new_colors(job):
        _apply_colors(data, owner, source, mesh)
    data.update()
    return bpy.data.objects.new(data.name, data)


def _apply_colors(data: Any, owner: Any, source: Source, mesh: MeshFile) -> None:
    """Write the colors to the attribute that was sent, or to a new one with a material when none shows it."""
    attribute = data.color_attributes.get(source.colors) if source.colors else None
    if attribute is None:
        attribute = data.color_attributes.new(import_mesh.ALBEDO, "FLOAT_COLOR", "POINT")
        data.color_attributes.active_color = attribute
        data.color_attributes.render_color_index = data.color_attributes.active_color_index
    if attribute.domain == "POINT":
        import_mesh.set_vertex_colors(attribute, mesh.albedo)
    else:
        # Each corner changes by as much as its vertex, which keeps a border between colors at one vertex.
        values = object_mesh.read_array(attribute.data, "color", np.float32, 4)
        corners = object_mesh.read_array(data.loops, "vertex_index", np.int32, 1)[:, 0]
        values[:, :3] += (mesh.albedo - object_mesh.vertex_colors(data, attribute).clip(0, 1))[corners]
        attribute.data.foreach_set("color", values.clip(0, 1).astype(np.float32).ravel())
    if not any(_shows_attribute(slot.material, attribute.name) for slot in owner.material_slots):
        data.materials.clear()
        data.materials.append(import_mesh.build_material(data.name, attribute=attribute.name))
        data.polygons.foreach_set("material_index", np.zeros(len(data.polygons), np.int32))


def _shows_attribute(material: Any, attribute: str) -> bool:
    """Whether a material reads a color attribute."""
    nodes = material.node_tree.nodes if material is not None and material.node_tree else ()
    return any(
        (node.type == "VERTEX_COLOR" and node.layer_name in ("", attribute))
        or (node.type == "ATTRIBUTE" and node.attribute_name == attribute)
        for node in nodes
    )


def _standalone_object(context: Any, source: Source | None, job: JobSummary, mesh: MeshFile) -> Any:
    """A new object of the result's triangles, at the location of the object that was sent, else at the 3D cursor."""
    name = labels.short(job.prompt, 50) or "Mesh"
    data = import_mesh.build_mesh(name, replace(mesh, texture=None))
    data.materials.append(import_mesh.build_material(name))
    made = bpy.data.objects.new(name, data)
    made.location = source.location if source is not None else context.scene.cursor.location
    return made


def _match_transform(context: Any, made: Any, owner: Any) -> None:
    """Give `made` the world transform of `owner`. Shear by parents, which no object has, goes into its vertices."""
    made.matrix_world = owner.matrix_world
    context.view_layer.update()
    own, wanted = np.array(made.matrix_world)[:3, :3], np.array(owner.matrix_world)[:3, :3]
    tolerance = 1e-5 * float(np.linalg.norm(wanted))  # float32 of Blender's matrices, after a decomposition
    if not np.allclose(own, wanted, rtol=0, atol=tolerance) and object_mesh.is_invertible(own):
        vertices = object_mesh.read_array(made.data.vertices, "co", np.float32, 3).astype(np.float64)
        made.data.vertices.foreach_set("co", (vertices @ (np.linalg.inv(own) @ wanted).T).astype(np.float32).ravel())
        made.data.update()
