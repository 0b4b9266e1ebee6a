# SPDX-License-Identifier: GPL-3.0-or-later
"""Without a window: a prop with an image texture, from the panel's choice to a render."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

import bpy
from headless import connect, imported_jobs, session, until


def rendered(made: Any) -> list[list[float]]:
    """Mean color of the upper and the lower half of what Cycles shows of the prop from the front, in even light."""
    scene = bpy.context.scene
    for other in [one for one in bpy.data.objects if one != made]:
        bpy.data.objects.remove(other)
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.location, camera.rotation_euler = (0, -5, 0.5), (1.5707963, 0, 0)
    camera.data.type, camera.data.ortho_scale = "ORTHO", 0.5
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.world = bpy.data.worlds.new("white")
    scene.world.color = (1, 1, 1)
    scene.render.engine, scene.cycles.samples, scene.cycles.device = "CYCLES", 8, "CPU"
    scene.cycles.use_denoising = False
    scene.render.resolution_x = scene.render.resolution_y = 16
    scene.view_settings.view_transform = "Standard"
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = os.path.join(tempfile.gettempdir(), "seen.png")
    bpy.ops.render.render(write_still=True)
    seen = bpy.data.images.load(scene.render.filepath)
    pixels = [seen.pixels[at : at + 3] for at in range(0, 4 * 256, 4)]  # from the bottom
    bpy.data.images.remove(seen)
    return [
        [sum(pixel[channel] for pixel in half) / len(half) for channel in range(3)]
        for half in (pixels[160:], pixels[:96])
    ]


def main() -> None:
    """Generate with an image texture, import, render; then render by the vertex colors."""
    connect()
    panel = bpy.context.window_manager.dreamwright
    panel.prompt, panel.color_as, panel.texture_size, panel.height_m = "a red mushroom", "IMAGE", 64, 1.0
    bpy.ops.dreamwright.generate()
    until(lambda: any(job.state == "succeeded" for job in session.jobs.values()), "the job")
    job = next(iter(session.jobs))
    bpy.context.scene.cursor.location = (0, 0, 0)
    bpy.ops.dreamwright.import_mesh(job=job)
    until(lambda: imported_jobs() == [job], "the import")
    made = next(one for one in bpy.data.objects if "dreamwright_prompt" in one)
    layer, nodes = made.data.uv_layers.active, made.data.materials[0].node_tree.nodes
    principled = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
    wired = principled.inputs["Base Color"].links[0].from_node
    image = wired.image
    height = made.dimensions.z
    # A corner's u is .5 + x / height and its v, from the bottom, z / height: see fake_server.texture_of.
    off = 0.0
    for loop, place in zip(made.data.loops, layer.data, strict=True):
        point = made.data.vertices[loop.vertex_index].co
        off = max(off, abs(place.uv[0] - (0.5 + point.x / height)), abs(place.uv[1] - point.z / height))
    report: dict[str, Any] = {
        "settings": session.jobs[job].settings,
        "image": [
            image.name,
            list(image.size),
            image.colorspace_settings.name,
            image.packed_file is not None,
            image.is_dirty,
        ],
        "named": [made.name, made.data.materials[0].name],
        "corner": [round(value, 3) for value in image.pixels[4 * 64 * 63 : 4 * 64 * 63 + 3]],  # of the top row, left
        "rows": [[round(value, 3) for value in image.pixels[at : at + 3]] for at in (400, 4 * 64 * 60)],
        "uv": [layer.name, len(layer.data), off],
        "wired": [
            wired.bl_idname,
            wired.inputs["Vector"].links[0].from_node.bl_idname,
            wired.inputs["Vector"].links[0].from_node.uv_map,
        ],
        "waits beside": [node.layer_name for node in nodes if node.type == "VERTEX_COLOR"],
        "attributes": [attribute.name for attribute in made.data.color_attributes],
        "sound": not made.data.validate(),
        "users": image.users,
        "roughness": [principled.inputs["Roughness"].default_value, principled.inputs["Metallic"].default_value],
    }
    panel.color_as = "VERTICES"
    bpy.ops.dreamwright.generate_again(only_fill=True)
    report["again"] = [panel.color_as, panel.texture_size]
    path = os.path.join(tempfile.gettempdir(), "kept.blend")
    report["picture"] = rendered(made)
    color = next(node for node in nodes if node.type == "VERTEX_COLOR")
    made.data.materials[0].node_tree.links.new(color.outputs["Color"], principled.inputs["Base Color"])
    report["by vertices"] = rendered(made)
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    kept = bpy.data.images.get(report["image"][0])
    report["kept"] = [list(kept.size), [round(value, 3) for value in kept.pixels[400:403]]] if kept else []
    print("REPORT " + json.dumps(report))


main()
