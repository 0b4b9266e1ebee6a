# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender without a window: a painted ball is finished by the command, and what arrives is told."""

from __future__ import annotations

import importlib
import json
import os
import time

import bpy

operators = importlib.import_module(f"{ADDON}.finish_operators")
state = importlib.import_module(f"{ADDON}.addon_state")
bpy.context.preferences.addons[ADDON].preferences.command = os.environ["COMMAND"]
bpy.ops.mesh.primitive_uv_sphere_add(segments=32, ring_count=16, location=(1, 2, 3))
source = bpy.context.active_object
source.name = "Ball"
colors = source.data.color_attributes.new("Albedo", "FLOAT_COLOR", "POINT")
for entry, vertex in zip(colors.data, source.data.vertices, strict=True):
    entry.color = (0.8, 0.1, 0.1, 1.0) if vertex.co.z > 0 else (0.1, 0.1, 0.8, 1.0)
material = bpy.data.materials.new("Paint")
material.use_nodes = True
nodes = material.node_tree.nodes
principled = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
paint = nodes.new("ShaderNodeVertexColor")
paint.layer_name = "Albedo"
material.node_tree.links.new(paint.outputs["Color"], principled.inputs["Base Color"])
source.data.materials.append(material)
bpy.context.view_layer.update()
bpy.ops.dreamwright.finish_mesh(triangles=200, texture=64, levels=1)
while operators.step():
    time.sleep(0.1)
bpy.context.view_layer.update()
finest = bpy.context.view_layer.objects.active
image = next((one for one in bpy.data.images if one.name.startswith("Ball_LOD0_albedo")), None)
pixels = [round(value, 3) for value in image.pixels[:]] if image else []
shades = sorted({tuple(pixels[4 * at : 4 * at + 3]) for at in range(len(pixels) // 4)})
report = {
    "said": state.session().notices[-1].text,
    "objects": sorted(one.name for one in bpy.data.objects if one.type == "MESH"),
    "location": list(finest.location),
    "size": list(finest.dimensions),
    "triangles": len(finest.data.polygons),
    "shades": [shades[0], shades[-1]] if shades else [],
}
print("REPORT " + json.dumps(report), flush=True)
finish()
