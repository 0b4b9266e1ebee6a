# SPDX-License-Identifier: GPL-3.0-or-later
"""Script inside Blender for `dreamwright demo`: install the add-on, generate a prop with it, light and render it.

It is never imported: `demo.py` passes it to Blender with its arguments in $DREAMWRIGHT_DEMO, and reads the lines that
start with MARK.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import bpy

MARK = "DREAMWRIGHT "
MODULE = "bl_ext.user_default.dreamwright"
ANSWER_S = 60.0  # for the server to answer; a job may take longer
ENDED = ("succeeded", "failed", "cancelled")


def report(**fields: Any) -> None:
    """Print a line for blender_run.py."""
    print(MARK + json.dumps(fields), flush=True)


def install(zip_path: str) -> tuple[Any, Any]:
    """Install and enable the zip as a user does; returns the add-on's `timer` and `addon_state` modules."""
    if bpy.app.version < (5, 2, 0):
        bpy.ops.preferences.addon_enable(module="bl_pkg")
    bpy.ops.extensions.package_install_files(repo="user_default", filepath=zip_path, enable_on_install=True)
    return importlib.import_module(f"{MODULE}.timer"), importlib.import_module(f"{MODULE}.addon_state")


def generate(arguments: dict[str, Any]) -> Any:
    """Generate and import a prop; returns the object. Raises RuntimeError with the reason when there is none."""
    timer, addon_state = install(arguments["zip"])
    session = addon_state.session()
    bpy.context.preferences.addons[MODULE].preferences.address = arguments["address"]
    bpy.ops.dreamwright.connect()
    if not timer.poll(lambda: session.is_online and session.capabilities is not None, ANSWER_S):
        raise RuntimeError(f"the server did not answer: {session.reason}")
    models = [model.name for model in session.capabilities.models if model.ready]
    ticket = session.submit(
        arguments["prompt"], "", models[0], arguments["preset"], arguments["seed"], arguments["settings"]
    )
    if not timer.poll(lambda: ticket not in session.pending, ANSWER_S) or ticket not in session.submitted_jobs:
        raise RuntimeError(session.notices[-1].text if session.notices else "the server did not take the job")
    job = session.submitted_jobs[ticket]
    shown = -1
    while session.jobs[job].state not in ENDED:
        timer.poll(timeout_s=0.5)
        if session.jobs[job].step != shown and session.jobs[job].steps:
            shown = session.jobs[job].step
            report(step=shown, steps=session.jobs[job].steps)
        if not session.is_open:
            raise RuntimeError(f"the connection is lost: {session.reason}")
    summary = session.jobs[job]
    if summary.state != "succeeded":
        raise RuntimeError(f"the job {summary.state}: {summary.message}")
    report(step=summary.steps, steps=summary.steps)
    before = set(bpy.data.objects)
    bpy.ops.dreamwright.import_mesh(job=job)
    if not timer.poll(lambda: set(bpy.data.objects) != before, ANSWER_S):
        raise RuntimeError(session.notices[-1].text if session.notices else "the mesh did not arrive")
    made = (set(bpy.data.objects) - before).pop()
    size = f"{len(made.data.polygons)} triangles, {made.dimensions.z:.2f} m tall"
    report(message=f"imported {made.name!r}: {size}, generated in {summary.elapsed_s:.0f} s")
    return made


def light_scene(prop: Any) -> dict[str, Any]:
    """Add a floor, a camera and two lights around the prop; returns the lights by name."""
    scene, size = bpy.context.scene, max(prop.dimensions)
    for name in ("Cube", "Light"):
        if name in bpy.data.objects:
            bpy.data.objects.remove(bpy.data.objects[name])
    floor = bpy.data.meshes.new("Floor")
    reach = 20 * size
    floor.from_pydata(
        [(-reach, -reach, 0), (reach, -reach, 0), (reach, reach, 0), (-reach, reach, 0)], [], [(0, 1, 2, 3)]
    )
    scene.collection.objects.link(bpy.data.objects.new("Floor", floor))
    camera = bpy.data.objects.get("Camera") or bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    if camera.name not in scene.collection.all_objects:
        scene.collection.objects.link(camera)
    scene.camera = camera
    middle = prop.location.z + 0.5 * prop.dimensions.z
    tilt, turn, distance = math.radians(20), math.radians(25), 3.0 * size
    camera.location = (
        distance * math.cos(tilt) * math.sin(turn),
        -distance * math.cos(tilt) * math.cos(turn),
        middle + distance * math.sin(tilt),
    )
    camera.rotation_euler = (math.pi / 2 - tilt, 0, turn)
    lights = {}
    for name, kind in (("sun", "SUN"), ("lamp", "AREA")):
        light = bpy.data.objects.new(name, bpy.data.lights.new(name, kind))
        scene.collection.objects.link(light)
        lights[name] = light
    lights["sun"].data.energy, lights["sun"].data.angle = 3.0, math.radians(2)
    lights["sun"].rotation_euler = (math.radians(50), 0, math.radians(40))
    lights["lamp"].data.energy, lights["lamp"].data.size = 120 * size**2, size
    lights["lamp"].data.color = (1.0, 0.45, 0.15)
    lights["lamp"].location = (-1.6 * size, -1.2 * size, 1.4 * size)
    lights["lamp"].rotation_euler = (math.radians(50), 0, math.radians(-53))
    world = scene.world or bpy.data.worlds.new("World")
    scene.world = world
    if world.node_tree is None:
        world.use_nodes = True
    background = next(node for node in world.node_tree.nodes if node.type == "BACKGROUND")
    background.inputs["Color"].default_value = (0.25, 0.3, 0.4, 1.0)
    background.inputs["Strength"].default_value = 0.4
    return lights


def render(lights: dict[str, Any], out: Path, size: int, samples: int) -> None:
    """Render one image under each light."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.use_denoising = samples, False
    scene.render.resolution_x = scene.render.resolution_y = size
    for chosen in lights:
        for name, light in lights.items():
            light.hide_render = name != chosen
        scene.render.filepath = str(out / f"{chosen}.png")
        bpy.ops.render.render(write_still=True)
        report(message=f"rendered under the {chosen}")


def main() -> None:
    """Generate, light, render and save."""
    arguments = json.loads(os.environ["DREAMWRIGHT_DEMO"])
    out = Path(arguments["out"])
    try:
        prop = generate(arguments)
        render(light_scene(prop), out, arguments["size"], arguments["samples"])
        bpy.ops.wm.save_as_mainfile(filepath=str(out / "scene.blend"))
    except Exception as error:
        report(error=f"{error}")
        raise
    finally:
        sys.stdout.flush()


if __name__ == "__main__":
    main()
