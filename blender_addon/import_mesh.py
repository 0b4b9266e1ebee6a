# SPDX-License-Identifier: GPL-3.0-or-later
"""Import of a downloaded mesh as an object with material, colors and texture, at the 3D cursor, in one undo step."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np

from . import compat, labels, placement, provenance
from .preview_history import decode_frame
from .shared.mesh_file import MeshFile
from .shared.messages import JobSummary, PreviewFrame

ALBEDO = "albedo"
UV_MAP = "UVMap"
ROUGHNESS = 0.6


def proper_faces(faces: np.ndarray) -> np.ndarray:
    """(F,) bool: faces with three different vertices. Blender's mesh arrays must not hold others."""
    return (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])


def build_mesh(name: str, mesh: MeshFile) -> Any:
    """A Mesh datablock with smooth shading, linear vertex colors, and a UV map when the mesh has a texture."""
    kept = proper_faces(mesh.faces)
    faces = mesh.faces[kept]
    made = bpy.data.meshes.new(name)
    made.vertices.add(len(mesh.vertices))
    made.vertices.foreach_set("co", np.ascontiguousarray(mesh.vertices, np.float32).ravel())
    made.loops.add(faces.size)
    made.loops.foreach_set("vertex_index", np.ascontiguousarray(faces, np.int32).ravel())
    made.polygons.add(len(faces))
    made.polygons.foreach_set("loop_start", np.arange(0, faces.size, 3, dtype=np.int32))
    if bpy.app.version < (4, 0, 0):
        made.polygons.foreach_set("loop_total", np.full(len(faces), 3, np.int32))
    # The file's normals are vertex averages of face normals, which is what smooth shading computes. Custom normals
    # would become wrong on edits and cost as much as the rest of the import.
    made.polygons.foreach_set("use_smooth", np.ones(len(faces), bool))
    if mesh.texture is not None:
        uv = mesh.texture.uv[mesh.texture.corners[kept]].reshape(-1, 2).astype(np.float32)
        uv[:, 1] = 1 - uv[:, 1]  # Blender's v starts at the bottom
        made.uv_layers.new(name=UV_MAP).data.foreach_set("uv", uv.ravel())
    made.update(calc_edges=True)
    made.validate()
    attribute = made.color_attributes.new(ALBEDO, "FLOAT_COLOR", "POINT")
    set_vertex_colors(attribute, mesh.albedo)
    made.color_attributes.active_color = attribute
    made.color_attributes.render_color_index = made.color_attributes.active_color_index
    return made


def set_vertex_colors(attribute: Any, albedo: np.ndarray) -> None:
    """Write (V, 3) linear colors to a color attribute of the vertices, with alpha 1."""
    colors = np.ones((len(albedo), 4), np.float32)
    colors[:, :3] = albedo
    attribute.data.foreach_set("color", colors.ravel())


def build_image(name: str, png: bytes) -> Any:
    """An sRGB Image datablock, packed into the .blend file. Raises ValueError when Blender cannot decode the PNG."""
    image = bpy.data.images.new(name, 1, 1)
    image.pack(data=png, data_len=len(png))
    image.source = "FILE"
    image.filepath_raw = f"//{bpy.path.clean_name(name)}.png"  # where Blender unpacks it to
    image.colorspace_settings.name = "sRGB"
    if not image.has_data and 0 in image.size:  # reading the size decodes the image
        bpy.data.images.remove(image)
        raise ValueError("its texture cannot be decoded")
    return image


def build_material(name: str, image: Any = None, attribute: str = ALBEDO) -> Any:
    """A material for Cycles and EEVEE: Color Attribute -> Principled Base Color.

    With an image, the image is connected by its UV map, and the Color Attribute node stays unconnected beside it.
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
    source = color
    if image is not None:
        texture, uv_map = nodes.new("ShaderNodeTexImage"), nodes.new("ShaderNodeUVMap")
        texture.image, uv_map.uv_map = image, UV_MAP
        texture.extension = "EXTEND"
        texture.location = (principled.location.x - 320, principled.location.y)
        uv_map.location = (texture.location.x - 220, texture.location.y - 140)
        color.location = (principled.location.x - 220, principled.location.y + 140)
        links.new(uv_map.outputs["UV"], texture.inputs["Vector"])
        nodes.active = texture  # shown by Solid shading, and the target of texture painting
        source = texture
    links.new(source.outputs["Color"], principled.inputs["Base Color"])
    principled.inputs["Roughness"].default_value = ROUGHNESS
    return material


def check_mesh(mesh: MeshFile) -> None:
    """Raise ValueError for a mesh without a proper face."""
    if not len(mesh.vertices) or not len(mesh.faces) or not proper_faces(mesh.faces).any():
        raise ValueError("the mesh is empty; try another seed or more steps")


def import_mesh(
    job: JobSummary, mesh: MeshFile, address: str, as_asset: bool = False, thumbnail: PreviewFrame | None = None
) -> Any:
    """Import a mesh at the 3D cursor, selected and active, as one undo step; the new object.

    Raises ValueError for an empty mesh, an unreadable texture or a linked scene, and then leaves nothing behind.
    """
    check_mesh(mesh)
    return compat.with_window(bpy.context, lambda: _import(job, mesh, address, as_asset, thumbnail))


def _import(job: JobSummary, mesh: MeshFile, address: str, as_asset: bool, thumbnail: PreviewFrame | None) -> Any:
    context = bpy.context
    placement.check_scene(context)
    placement.leave_edit_mode(context)
    name = labels.short(job.prompt, 50) or "Prop"
    with placement.discard_on_error():
        image = build_image(name, mesh.texture.png) if mesh.texture is not None else None
        data = build_mesh(name, mesh)
        made = bpy.data.objects.new(name, data)
        if image is not None:
            image.name = made.name
        data.materials.append(build_material(name, image))
        made.location = context.scene.cursor.location
        set_properties(made, provenance.properties_of(job, mesh.facts, address))
        placement.link_to_scene(context, made, [context.collection] if context.collection else [])
        if as_asset:
            mark_as_asset(made, job, thumbnail)
    placement.push_undo(f"Import: {labels.short(job.prompt, 40)}")
    return made


def set_properties(made: Any, values: dict[str, Any]) -> None:
    """Set custom properties of an object."""
    for key, value in values.items():
        made[key] = value


def mark_as_asset(made: Any, job: JobSummary, thumbnail: PreviewFrame | None) -> None:
    """Add an object to the Asset Browser, with a preview of its job as thumbnail."""
    made.asset_mark()
    made.asset_data.description = job.prompt
    made.asset_data.author = "Dreamwright"
    made.asset_data.tags.new("dreamwright", skip_if_exists=True)
    if thumbnail is not None:
        target = made.preview_ensure()
        target.image_size = (thumbnail.width, thumbnail.height)
        pixels = np.ones((thumbnail.height, thumbnail.width, 4), np.float32)
        pixels[..., :3] = decode_frame(thumbnail)[::-1] / np.float32(255)  # Blender's rows start at the bottom
        target.image_pixels_float.foreach_set(pixels.ravel())
