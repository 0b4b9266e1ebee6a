# SPDX-License-Identifier: GPL-3.0-or-later
"""A fetched mesh becomes an object: shaded, colored, placed, and undone in one step."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import bpy
import numpy as np

from . import compat, labels
from .preview_frames import decode_frame
from .shared import __version__
from .shared.mesh_file import MeshFile
from .shared.messages import JobSummary, PreviewFrame

ALBEDO = "albedo"
UV_MAP = "UVMap"
ROUGHNESS = 0.6
ECHOED = "source_"  # how the facts begin that say where a refined mesh belongs
REFINE = "refine"  # the preset of what was made of a mesh
PREFIX = "dreamwright_"  # of the custom properties that say where an object came from


def build_mesh(name: str, mesh: MeshFile) -> Any:
    """A Mesh datablock with smooth shading, the albedo as linear colors, and a UV map where there is a picture."""
    faces = mesh.faces
    # A triangle that names a corner twice is no triangle, and Blender's arrays must not hold one.
    sound = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces = faces[sound]
    made = bpy.data.meshes.new(name)
    made.vertices.add(len(mesh.vertices))
    made.vertices.foreach_set("co", np.ascontiguousarray(mesh.vertices, np.float32).ravel())
    made.loops.add(faces.size)
    made.loops.foreach_set("vertex_index", np.ascontiguousarray(faces, np.int32).ravel())
    made.polygons.add(len(faces))
    made.polygons.foreach_set("loop_start", np.arange(0, faces.size, 3, dtype=np.int32))
    if bpy.app.version < (4, 0, 0):
        made.polygons.foreach_set("loop_total", np.full(len(faces), 3, np.int32))
    # The file's normals are the faces' own, averaged at each vertex: what smooth shading computes by itself, and what
    # stays right while the artist edits; custom normals would not, and cost as much again as all the rest.
    made.polygons.foreach_set("use_smooth", np.ones(len(faces), bool))
    if mesh.texture is not None:
        uv = mesh.texture.uv[mesh.texture.corners[sound]].reshape(-1, 2) * np.float32([1, -1]) + np.float32(
            [0, 1]
        )  # v from the bottom
        made.uv_layers.new(name=UV_MAP).data.foreach_set("uv", uv.ravel())
    made.update(calc_edges=True)
    made.validate()
    colors = np.ones((len(mesh.vertices), 4), np.float32)
    colors[:, :3] = mesh.albedo
    attribute = made.color_attributes.new(ALBEDO, "FLOAT_COLOR", "POINT")
    attribute.data.foreach_set("color", colors.ravel())
    made.color_attributes.active_color = attribute
    made.color_attributes.render_color_index = made.color_attributes.active_color_index
    return made


def build_image(name: str, png: bytes) -> Any:
    """An Image datablock packed into the .blend, display sRGB. Raises ValueError when this Blender cannot read the picture."""
    image = bpy.data.images.new(name, 1, 1)
    image.pack(data=png, data_len=len(png))
    image.source = "FILE"
    image.filepath_raw = f"//{bpy.path.clean_name(name)}.png"  # where unpacking puts it
    image.colorspace_settings.name = "sRGB"
    if not image.has_data and 0 in image.size:  # asking for its size has it decoded
        bpy.data.images.remove(image)
        raise ValueError("the picture of its colors cannot be decoded")
    return image


def build_material(name: str, image: Any = None, attribute: str = ALBEDO) -> Any:
    """Color Attribute -> Principled Base Color, rough, ready for Cycles and EEVEE.

    With an image that is what is wired, by its UV map; the Color Attribute stays beside it, to be wired instead.
    """
    material = bpy.data.materials.new(name)
    compat.use_nodes(material)
    nodes, links = material.node_tree.nodes, material.node_tree.links
    principled = next((node for node in nodes if node.type == "BSDF_PRINCIPLED"), None)
    if principled is None:
        principled = nodes.new("ShaderNodeBsdfPrincipled")
        output = next((n for n in nodes if n.type == "OUTPUT_MATERIAL"), None) or nodes.new("ShaderNodeOutputMaterial")
        links.new(principled.outputs["BSDF"], output.inputs["Surface"])
    color = nodes.new("ShaderNodeVertexColor")
    color.layer_name = attribute
    color.location = (principled.location.x - 220, principled.location.y)
    if image is not None:
        picture, places = nodes.new("ShaderNodeTexImage"), nodes.new("ShaderNodeUVMap")
        picture.image, places.uv_map = image, UV_MAP
        picture.extension = "EXTEND"
        picture.location = (principled.location.x - 320, principled.location.y)
        places.location = (picture.location.x - 220, picture.location.y - 140)
        color.location = (principled.location.x - 220, principled.location.y + 140)
        links.new(places.outputs["UV"], picture.inputs["Vector"])
        nodes.active = picture  # what Solid shading shows, and what is painted on
    source = color if image is None else picture
    links.new(source.outputs["Color"], principled.inputs["Base Color"])
    principled.inputs["Roughness"].default_value = ROUGHNESS
    return material


def provenance(job: JobSummary, facts: dict[str, Any], address: str) -> dict[str, Any]:
    """What made an object, as custom properties; enough to dream it again."""
    known = {
        "prompt": job.prompt,
        "negative": job.negative,
        "model": job.model,
        "preset": job.preset,
        "seed": job.seed,
        "settings": json.dumps(job.settings, sort_keys=True),
        "job": job.job,
        "steps": job.step,
        "server": address,
        "version": __version__,
        "imported": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    if job.parent_job:
        known["parent_job"] = job.parent_job
    for name, value in facts.items():
        if not name.startswith(ECHOED):
            known.setdefault(name.replace(".", "_"), value)
    # A custom property holds a name of at most 63 bytes, and whole numbers of 32 bits.
    kept = {(PREFIX + name)[:60]: value for name, value in known.items()}
    return {
        name: str(value) if isinstance(value, int) and not -(2**31) <= value < 2**31 else value
        for name, value in kept.items()
    }


def deliver(
    job: JobSummary, mesh: MeshFile, address: str, as_asset: bool = False, picture: PreviewFrame | None = None
) -> Any:
    """Put the prop at the 3D cursor, selected and active, as one undo step. Raises ValueError for an empty mesh."""
    if not len(mesh.vertices) or not len(mesh.faces):
        raise ValueError("The mesh is empty: nothing was left of the field; try another seed or more steps")
    return compat.with_window(bpy.context, lambda: _deliver(job, mesh, address, as_asset, picture))


def _deliver(job: JobSummary, mesh: MeshFile, address: str, as_asset: bool, picture: PreviewFrame | None) -> Any:
    context = bpy.context
    leave_edit_mode(context)
    name = labels.short(job.prompt, 50) or "Prop"
    image = build_image(name, mesh.texture.png) if mesh.texture is not None else None  # first: it can fail
    data = build_mesh(name, mesh)
    made = bpy.data.objects.new(name, data)
    if image is not None:
        image.name = made.name
    data.materials.append(build_material(name, image))
    made.location = context.scene.cursor.location
    for key, value in provenance(job, mesh.facts, address).items():
        made[key] = value
    put_into_scene(context, made, [context.collection or context.scene.collection])
    if as_asset:
        mark_as_asset(made, job, picture)
    push_undo(f"Dream: {labels.short(job.prompt, 40)}")
    return made


def put_into_scene(context: Any, made: Any, collections: Iterable[Any]) -> None:
    """Link an object to collections, or where it can be seen; it is then the active and only selected one."""
    for collection in collections:
        collection.objects.link(made)
    context.view_layer.update()
    if made.name not in context.view_layer.objects and made.name not in context.scene.collection.objects:
        # The active collection is excluded from this view layer: an object that nobody can see is no result.
        context.scene.collection.objects.link(made)
    for selected in list(context.selected_objects):
        selected.select_set(False)
    made.select_set(True)
    context.view_layer.objects.active = made


def push_undo(message: str) -> None:
    """End an undo step: what the data API does makes none by itself."""
    bpy.ops.ed.undo_push(message=message)


def leave_edit_mode(context: Any) -> None:
    """Have the active object in Object Mode, where its data may be changed."""
    active = context.view_layer.objects.active
    if active is not None and active.mode != "OBJECT":
        bpy.ops.object.mode_set(mode="OBJECT")


def mark_as_asset(made: Any, job: JobSummary, picture: PreviewFrame | None) -> None:
    """Put an object into the Asset Browser, with the job's last picture."""
    made.asset_mark()
    made.asset_data.description = job.prompt
    made.asset_data.author = "Dreamwright"
    made.asset_data.tags.new("dreamwright", skip_if_exists=True)
    if picture is not None:
        thumbnail = made.preview_ensure()
        thumbnail.image_size = (picture.width, picture.height)
        pixels = np.ones((picture.height, picture.width, 4), np.float32)
        pixels[..., :3] = decode_frame(picture)[::-1] / np.float32(255)  # Blender's rows begin at the bottom
        thumbnail.image_pixels_float.foreach_set(pixels.ravel())


def remembered_request(owner: Any) -> dict[str, Any] | None:
    """The prompt and settings that made an object; None when it was not dreamt here."""
    if owner is None or not isinstance(owner.get(PREFIX + "prompt"), str):
        return None
    if owner.get(PREFIX + "preset") == REFINE:
        return None  # no prompt alone made it
    try:
        settings = json.loads(owner.get(PREFIX + "settings", "{}"))
    except (TypeError, ValueError):
        settings = {}
    seed = owner.get(PREFIX + "seed", 0)
    return {
        "prompt": owner[PREFIX + "prompt"],
        "negative": str(owner.get(PREFIX + "negative", "")),
        "model": str(owner.get(PREFIX + "model", "")),
        "preset": str(owner.get(PREFIX + "preset", "")),
        "seed": int(seed) if isinstance(seed, (int, float)) else 0,
        "settings": settings if isinstance(settings, dict) else {},
    }
