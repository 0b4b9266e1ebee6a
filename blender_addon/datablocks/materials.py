# SPDX-License-Identifier: GPL-3.0-or-later
"""Materials and packed images for Cycles and EEVEE."""

from __future__ import annotations

from typing import Any

import bpy

from .meshes import ALBEDO, UV_MAP

ROUGHNESS = 0.6


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
    if bpy.app.version < (5, 0, 0):  # later ones always have a node tree, and setting `use_nodes` warns
        material.use_nodes = True
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
