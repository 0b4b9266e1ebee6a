# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside Blender: what cameras see of a World of the image $WORLD, looking along the directions in $DIRECTIONS."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import bpy
import numpy as np
from mathutils import Vector

sys.path.insert(0, os.environ["RELIGHTING"])
import blender_lightings

bpy.ops.wm.read_factory_settings(use_empty=True)
scene = bpy.context.scene
scene.world = blender_lightings._image_world(os.environ["WORLD"])
camera = bpy.data.objects.new("eye", bpy.data.cameras.new("eye"))
camera.data.angle = 0.02
scene.collection.objects.link(camera)
scene.camera = camera
scene.render.engine = "CYCLES"
scene.cycles.device, scene.cycles.samples, scene.cycles.use_denoising = "CPU", 4, False
scene.render.resolution_x = scene.render.resolution_y = 4
scene.render.image_settings.file_format = "OPEN_EXR"
scene.render.filepath = str(Path(os.environ["HOME"]) / "seen.exr")
seen = []
for direction in json.loads(os.environ["DIRECTIONS"]):
    camera.rotation_euler = Vector(direction).to_track_quat("-Z", "Y").to_euler()
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(scene.render.filepath, check_existing=False)
    pixels = np.empty(4 * 4 * 4, np.float32)
    image.pixels.foreach_get(pixels)
    seen.append(pixels.reshape(-1, 4)[:, :3].mean(0).tolist())
    bpy.data.images.remove(image)
print("REPORT " + json.dumps({"seen": seen}))
