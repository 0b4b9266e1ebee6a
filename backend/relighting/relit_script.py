# SPDX-License-Identifier: GPL-3.0-or-later
"""Script inside Blender for `dreamwright demo --scene`: props of a library in a scene, its pictures, and its images.

Blender runs it with the path of its request in $DREAMWRIGHT_RELIT; blender_run.py reads the lines that start with MARK.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import bpy
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import blender_lightings  # type: ignore[import-not-found]
import blender_renders  # type: ignore[import-not-found]

MARK = "DREAMWRIGHT "
ARGUMENTS = "DREAMWRIGHT_RELIT"
MEASURED = "measured.npz"
JOB = "dreamwright_job"  # custom property of the library's objects


def report(**fields: Any) -> None:
    """Print a line for blender_run.py."""
    print(MARK + json.dumps(fields), flush=True)


def add_props(blend: str, described: list[dict[str, Any]], collection: Any) -> list[Any]:
    """Append the props from the library, at their size and place. Raises ValueError for one that is not there."""
    with bpy.data.libraries.load(blend, link=False) as (offered, taken):
        taken.objects = list(offered.objects)
    by_job = {made[JOB]: made for made in taken.objects if JOB in made}
    props = []
    for prop in described:
        made = by_job.pop(prop["job"], None)
        if made is None:
            raise ValueError(f"the library {blend} has no object of the job {prop['job']!r}")
        made.asset_clear()
        made.name = made.data.name = made.data.materials[0].name = prop["name"]
        # Into the mesh, so that the object has scale 1 and its size is real to physics and textures as well.
        made.data.transform(type(made.matrix_world).Scale(prop["scale"], 4))
        made.location, made.rotation_euler = prop["location"], (0.0, 0.0, math.radians(prop["turn_deg"]))
        collection.objects.link(made)
        props.append(made)
    for made in by_job.values():
        bpy.data.objects.remove(made)
    bpy.data.orphans_purge(do_recursive=True)
    return props


def build(request: dict[str, Any]) -> tuple[dict[str, Any], list[Any], Any]:
    """The scenes by lighting, the props, and the ground."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.preferences.filepaths.save_version = 0
    empty = bpy.context.scene
    shared = bpy.data.collections.new("Set")
    empty.collection.children.link(shared)
    props = add_props(request["blend"], request["props"], shared)
    ground = blender_lightings.add_ground(shared)
    camera = blender_lightings.add_camera(shared, request["view"])
    bpy.context.view_layer.update()
    lamps = [(made, prop["shade_begins"]) for made, prop in zip(props, request["props"], strict=True) if prop["lamp"]]
    scenes = blender_lightings.add_lightings(shared, camera, lamps[0] if lamps else (None, 0.0), request["world"])
    if bpy.context.window is not None:
        bpy.context.window.scene = scenes["sun"]
    bpy.data.scenes.remove(empty)
    for scene in scenes.values():
        blender_renders.prepare(scene, request["width"], request["height"])
    return scenes, props, ground


def run(request: dict[str, Any]) -> None:
    """Save the scene, then render what is not there yet."""
    out, done = Path(request["out"]), 0
    scenes, props, ground = build(request)
    total = len(scenes) * (1 + 2 * len(request["measured_light"])) + 2

    def tell() -> None:
        nonlocal done
        done += 1
        report(done=done, total=total)

    for name, scene in scenes.items():
        path = out / f"{name}.png"
        if not path.is_file():
            blender_renders.render_picture(scene, path, request["samples"], request["picture_bounces"])
        tell()
    for scene in scenes.values():
        scene.render.filepath = "//"
    bpy.ops.wm.save_as_mainfile(filepath=str(out / "scene.blend"), compress=True, check_existing=False)
    if (out / MEASURED).is_file():
        return
    for made, prop in zip(props, request["props"], strict=True):
        if prop["expected"]:
            blender_renders.add_expected(made, np.load(prop["expected"], allow_pickle=False))
    arrays = blender_renders.render_measured(
        scenes, props, ground, request["gray"], request["measured_light"], out, tell
    )
    with (out / "partial.npz").open("wb") as file:
        np.savez(file, **arrays)
    os.replace(out / "partial.npz", out / MEASURED)


def main() -> None:
    """Carry out the request."""
    request = json.loads(Path(os.environ[ARGUMENTS]).read_text(encoding="utf-8"))
    try:
        run(request)
    except Exception as error:
        report(error=f"{type(error).__name__}: {error}")
        raise
    finally:
        sys.stdout.flush()


if __name__ == "__main__":
    main()
