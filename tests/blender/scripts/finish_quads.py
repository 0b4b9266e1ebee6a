# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender without a window: a wavy ball is finished with quads, exported to FBX, and the file is read."""

from __future__ import annotations

import importlib
import json
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import bpy
from shaded_triangles import angle_deg, shaded_triangles

ADDON: str  # given by run_installed.py

operators: Any = importlib.import_module(f"{ADDON}.finish_operators")
importing: Any = importlib.import_module(f"{ADDON}.import_finished")
session: Any = importlib.import_module(f"{ADDON}.addon_state").session()
bpy.context.preferences.addons[ADDON].preferences.command = os.environ["COMMAND"]
report: dict[str, Any] = {}
join = importing.join_into_quads


def measured(mesh: Any) -> float:
    """Join, and measure what it changes."""
    before = shaded_triangles(mesh)
    share = join(mesh)
    after = shaded_triangles(mesh)
    report.setdefault("same triangles", []).append(set(before) == set(after))
    turned = [
        angle_deg(old[part], new[part])
        for key, corners in before.items()
        for (old, _), (new, _) in zip(corners, after.get(key, corners))  # noqa: B905
        for part in (slice(3), slice(3, 6))  # normal, tangent
    ]
    report.setdefault("degrees", []).append(max(turned))
    return float(share)


importing.join_into_quads = measured
bpy.ops.mesh.primitive_uv_sphere_add(segments=64, ring_count=32, location=(1, 2, 3))
source = bpy.context.active_object
source.name = "Ball"
for vertex in source.data.vertices:
    vertex.co *= 1 + 0.1 * math.sin(5 * vertex.co.x) * math.cos(4 * vertex.co.z)
bpy.ops.dreamwright.finish_mesh(triangles=600, texture=64, levels=1, layout_kind="even", quads=True)
while operators.step():
    time.sleep(0.1)
report["said"] = session.notices[-1].text
levels = [bpy.data.objects[f"Ball_LOD{number}"] for number in range(2)]
sides = [[len(face.vertices) for face in one.data.polygons] for one in levels]
report["shares"] = [one.count(4) / len(one) for one in sides]
report["told"] = [one["dreamwright_quads"] for one in levels]
report["faces"] = [len(one.data.polygons) for one in levels]
names = sorted(one.name for one in bpy.data.objects)
path = Path(tempfile.mkdtemp()) / "ball.fbx"
report["export"] = sorted(bpy.ops.dreamwright.export_finished(filepath=str(path)))
report["scene stays"] = names == sorted(one.name for one in bpy.data.objects)
bpy.ops.wm.read_homefile(use_empty=True)
bpy.ops.import_scene.fbx(filepath=str(path))
report["file"] = {one.name: one.parent.name if one.parent else "" for one in bpy.data.objects}
report["file faces"] = [len(bpy.data.objects[f"Ball_LOD{number}"].data.polygons) for number in range(2)]
report["images"] = sorted(one.name.partition(".")[0] for one in bpy.data.images if one.size[0])
print("REPORT " + json.dumps(report), flush=True)
finish()
