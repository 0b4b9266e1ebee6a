# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender without a window: a ball of the scene is refined, as a new object and as a shape key."""

from __future__ import annotations

import json
import os
from typing import Any

import bpy
from headless import connect, session, until
from mathutils import Vector

OPTIONS: dict[str, Any] = json.loads(os.environ.get("OPTIONS", "{}"))
PATIENCE_S = float(os.environ.get("PATIENCE", "60"))


def ball() -> Any:
    """A painted, turned and unevenly scaled ball."""
    bpy.ops.mesh.primitive_uv_sphere_add(segments=24, ring_count=16)
    made = bpy.context.active_object
    made.name = "Ball"
    made.scale, made.rotation_euler, made.location = (0.5, 0.5, 0.6), (0.0, 0.0, 0.4), (0.5, 1.0, 0.25)
    material = bpy.data.materials.new("Paint")
    material.use_nodes = True
    principled = next(node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    principled.inputs["Base Color"].default_value = (0.2, 0.4, 0.6, 1)
    made.data.materials.append(material)
    bpy.context.view_layer.update()
    return made


def world(owner: Any, data: Any = None) -> list[Vector]:
    bpy.context.view_layer.update()
    return [owner.matrix_world @ vertex.co for vertex in (data or owner.data).vertices]


def refined(source: Any, result: str) -> str:
    """Submit, see it end, import; the job."""
    for other in bpy.context.selected_objects:
        other.select_set(False)
    source.select_set(True)
    bpy.context.view_layer.objects.active = source
    known = set(session.jobs)
    bpy.ops.dreamwright.refine_mesh(result=result, **{"prompt": "a red mushroom", "strength": 0.25, **OPTIONS})
    until(lambda: bool(set(session.jobs) - known) and not session.pending, "the job")
    job = (set(session.jobs) - known).pop()
    until(lambda: session.jobs[job].state in ("succeeded", "failed"), "the job's end", PATIENCE_S)
    session.notices.clear()
    bpy.ops.dreamwright.import_mesh(job=job)
    until(lambda: bool(session.notices), "the import")
    return job


def rendered(name: str, shown: list[Any]) -> None:
    """Render some objects with Cycles from the front, when images are requested."""
    if not os.environ.get("PICTURES"):
        return
    scene = bpy.context.scene
    for one in bpy.data.objects:
        one.hide_render = one not in shown
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.location, camera.rotation_euler = (0.5, -3.0, 0.9), (1.4, 0, 0)
    scene.collection.objects.link(camera)
    scene.camera, scene.world = camera, bpy.data.worlds.new("white")
    scene.world.color = (0.8, 0.8, 0.8)
    scene.render.engine, scene.cycles.samples, scene.cycles.device = "CYCLES", 16, "CPU"
    scene.cycles.use_denoising = False
    scene.render.resolution_x = scene.render.resolution_y = 240
    scene.view_settings.view_transform = "Standard"
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = os.path.join(os.environ["PICTURES"], f"{name}.png")
    bpy.ops.render.render(write_still=True)


def main() -> None:
    connect()
    source = ball()
    where, count = world(source), len(source.data.vertices)
    rendered("before", [source])
    job = refined(source, "OBJECT")
    summary = session.jobs[job]
    made = bpy.context.view_layer.objects.active
    color = made.data.color_attributes.active_color
    shades = [tuple(round(value, 3) for value in item.color[:3]) for item in color.data]
    moves = [after - before for before, after in zip(where, world(made), strict=True)]
    report: dict[str, Any] = {
        "job": [summary.state, summary.message, summary.step, summary.preset, len(summary.mesh)],
        "notices": [notice.text for notice in session.notices],
        "made": [
            made.name != source.name,
            len(made.data.vertices) == count,
            len(made.data.polygons) == len(source.data.polygons),
        ],
        "still there": max((after - before).length for before, after in zip(where, world(source), strict=True)),
        "moves": [list(min(moves, key=lambda move: move.length)), list(max(moves, key=lambda move: move.length))],
        "attribute": [color.data_type, color.domain],
        "shades": [len(set(shades)), shades[0]],
        "provenance": {name: made[f"dreamwright_{name}"] for name in ("prompt", "refined_sha256", "preset")},
        "radius": max((place - sum(where, Vector()) / count).length for place in where),
        "sound": not made.data.validate(),
    }
    rendered("after", [made])
    refined(source, "SHAPE_KEY")
    shown = source.evaluated_get(bpy.context.evaluated_depsgraph_get())
    report["key"] = [block.name for block in source.data.shape_keys.key_blocks]
    report["as far"] = max(
        (one - other).length for one, other in zip(world(source, shown.data), world(made), strict=True)
    )
    report["beside"] = [attribute.name for attribute in source.data.color_attributes]
    report["last notices"] = [notice.text for notice in session.notices]
    rendered("key", [source])
    print("REPORT " + json.dumps(report))


main()
