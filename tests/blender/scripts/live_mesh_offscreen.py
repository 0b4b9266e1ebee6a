# SPDX-License-Identifier: GPL-3.0-or-later
"""Without a window, where Blender can draw all the same: what the add-on draws of a live mesh, in an image."""

from __future__ import annotations

import importlib
import json
import os
from typing import Any

import bpy
import gpu
import numpy as np
from headless import connect, until
from mathutils import Matrix

SIZE = 64
live: Any = importlib.import_module(f"{os.environ['DREAMWRIGHT_TEST_ADDON']}.live_mesh")


def drawn() -> np.ndarray:
    """(SIZE, SIZE, 3) colors 0 to 255 from the front, of the square of 4 units around the origin, bottom first."""
    target = gpu.types.GPUOffScreen(SIZE, SIZE)
    with target.bind():
        frame = gpu.state.active_framebuffer_get()
        frame.clear(color=(0, 0, 0, 1), depth=1.0)
        with gpu.matrix.push_pop(), gpu.matrix.push_pop_projection():
            # x to the right, z up, and y, away from the viewer, as depth.
            gpu.matrix.load_matrix(Matrix.Identity(4))
            gpu.matrix.load_projection_matrix(
                Matrix(((0.5, 0, 0, 0), (0, 0, 0.5, 0), (0, 0.1, 0, 0), (0, 0, 0, 1)))
            )  # fmt: skip
            live._draw_mesh()
        pixels = np.array(frame.read_color(0, 0, SIZE, SIZE, 4, 0, "UBYTE").to_list())
    target.free()
    return pixels[..., :3]


def main() -> None:
    """Watch a ball of one meter at (1, 0, 0), in a scene whose unit is a meter and in one whose unit is two."""
    connect()
    gpu.init()
    bpy.context.window_manager.dreamwright.prompt = "a red mushroom"
    bpy.context.scene.cursor.location = (1, 0, 0)
    bpy.ops.dreamwright.generate()
    until(lambda: live.shown() is not None, "a live mesh")
    report = {"height": float(live.shown().positions[:, 2].max())}
    for name, scale in (("meters", 1.0), ("half", 2.0)):
        bpy.context.scene.unit_settings.scale_length = scale
        pixels = drawn()
        rows, columns = np.nonzero(pixels.max(axis=-1) > 8)
        report[name] = [int(value) for value in (columns.min(), columns.max(), rows.min(), rows.max())]
        report[f"{name} red"] = [int(value) for value in pixels[rows, columns].mean(axis=0)]
    print("REPORT " + json.dumps(report))


main()
