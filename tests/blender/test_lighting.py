# SPDX-License-Identifier: GPL-3.0-or-later
"""The delivered prop under light, in Cycles."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy")

from dreamwright.shared.mesh_file import MeshFile
from tests.blender.test_messages import JOB
from tests.testing.addon_driver import AddonDriver


def sun(name: str, strength: float, tilt: float) -> Any:
    light = bpy.data.lights.new(name, "SUN")
    light.energy, light.angle = strength, 0.0
    lamp = bpy.data.objects.new(name, light)
    lamp.rotation_euler = (tilt, 0, 0)
    bpy.context.scene.collection.objects.link(lamp)
    return lamp


def rendered(tmp_path: Path) -> np.ndarray:
    """The linear radiance at the center of the render."""
    scene = bpy.context.scene
    scene.render.filepath = str(tmp_path / "light.exr")
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(scene.render.filepath)
    pixels = np.empty(32 * 32 * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return pixels.reshape(32, 32, 4)[12:20, 12:20, :3].mean((0, 1))


@pytest.mark.slow
def test_material_renders_as_lambertian_albedo(blender: AddonDriver, tmp_path: Path) -> None:
    albedo = np.array([0.6, 0.3, 0.1], np.float32)
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    up = np.tile(np.float32([0, 0, 1]), (4, 1))
    mesh = MeshFile(corners, np.array([[0, 1, 2], [0, 2, 3]], np.int32), up, np.tile(albedo, (4, 1)))
    made = blender.module("import_mesh").import_mesh(JOB, mesh, "x")
    principled = next(n for n in made.data.materials[0].node_tree.nodes if n.type == "BSDF_PRINCIPLED")
    # The coat of reflection on top of the albedo is the material's, not the albedo's: taken away to measure the latter.
    principled.inputs["Specular IOR Level" if bpy.app.version >= (4, 0, 0) else "Specular"].default_value = 0
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device, scene.cycles.samples, scene.cycles.use_denoising = "CPU", 16, False
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    scene.render.resolution_x = scene.render.resolution_y = 32
    scene.render.image_settings.file_format = "OPEN_EXR"
    scene.view_settings.view_transform = "Raw"
    camera = bpy.data.objects.new("eye", bpy.data.cameras.new("eye"))
    camera.location = (0, 0, 3)
    scene.collection.objects.link(camera)
    scene.camera = camera
    for strength, tilt in ((2.0, 0.0), (5.0, math.radians(60))):
        lamp = sun("sun", strength, tilt)
        expected = albedo / math.pi * strength * math.cos(tilt)
        found = rendered(tmp_path)
        bpy.data.objects.remove(lamp)
        # A plane under a light of no size has no Monte Carlo noise. An EXR file of half precision rounds by 2^-11 =
        # 5e-4.
        assert found == pytest.approx(expected, rel=1e-3), (strength, tilt)
