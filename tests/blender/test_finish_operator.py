# SPDX-License-Identifier: GPL-3.0-or-later
"""Finish Selected Mesh: when it is disabled, what it makes and where, cancel, faults."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy")

from tests.testing.addon_driver import AddonDriver, why_not
from tests.testing.posed_objects import turned, world

QUICK = {"triangles": 200, "texture": 64, "levels": 1}


@pytest.fixture
def at(blender: AddonDriver) -> AddonDriver:
    blender.preferences.command = str(Path(sys.executable).with_name("dreamwright"))
    return blender


def ball() -> Any:
    """A red ball, turned, scaled and away from the origin."""
    bpy.ops.mesh.primitive_uv_sphere_add(segments=32, ring_count=16)
    made = bpy.context.active_object
    made.name = "Red Ball"
    material = bpy.data.materials.new("Paint")
    material.use_nodes = True
    principled = next(node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    principled.inputs["Base Color"].default_value = (0.5, 0.05, 0.05, 1)
    made.data.materials.append(material)
    turned(made)
    bpy.context.view_layer.update()
    return made


def wait(at: AddonDriver, seconds: float = 200.0) -> str:
    """Follow the run to its end; the last notice."""
    operators, end = at.module("finish_operators"), time.monotonic() + seconds
    while operators.step():
        assert time.monotonic() < end
        time.sleep(0.05)
    return str(at.session.notices[-1].text)


def test_button_is_disabled_with_a_reason(blender: AddonDriver) -> None:
    button = bpy.ops.dreamwright.finish_mesh
    assert "Select the mesh object" in why_not(button)
    ball()
    blender.preferences.command = "no-such-command"
    assert "no-such-command was not found" in why_not(button)
    bpy.ops.object.mode_set(mode="EDIT")
    assert "Go to Object Mode first" in why_not(button)
    assert "No mesh is being finished" in why_not(bpy.ops.dreamwright.cancel_finish)


@pytest.mark.slow
@pytest.mark.parametrize("pivot", ["base", "keep"])
def test_asset_lies_over_its_source(at: AddonDriver, pivot: str) -> None:
    source = ball()
    before = world(source)
    assert bpy.ops.dreamwright.finish_mesh(**QUICK, pivot=pivot, roughness=0.25) == {"FINISHED"}
    assert "is being finished" in why_not(bpy.ops.dreamwright.finish_mesh)
    said = wait(at)
    assert said.startswith("Finished “Red Ball”: levels of "), said
    collection = bpy.data.collections["Red_Ball"]
    names = sorted(one.name for one in collection.objects)
    assert names[:2] == ["Red_Ball_LOD0", "Red_Ball_LOD1"] and names[2] == "UCX_Red_Ball_LOD0_00"
    finest = bpy.context.view_layer.objects.active
    assert finest.name == "Red_Ball_LOD0" and finest.select_get() and not finest.hide_get()
    assert all(bpy.data.objects[name].hide_get() for name in names[1:])
    assert 0 < bpy.data.objects["Red_Ball_LOD1"]["dreamwright_screen_size"] < 1
    assert len(finest.data.polygons) <= 200
    # Within 3% of the diagonal of the source, as finish.deviation says, in place and size.
    after, diagonal = world(finest), float(np.linalg.norm(np.ptp(before, axis=0)))
    for low, high in ((before.min(0), after.min(0)), (before.max(0), after.max(0))):
        assert np.abs(low - high).max() < 0.03 * diagonal
    middle = 0.5 * (before.min(0) + before.max(0))
    wanted = [middle[0], middle[1], before[:, 2].min()] if pivot == "base" else list(source.location)
    assert list(finest.location) == pytest.approx(wanted, abs=1e-4)
    principled = next(n for n in finest.data.materials[0].node_tree.nodes if n.type == "BSDF_PRINCIPLED")
    assert principled.inputs["Roughness"].default_value == pytest.approx(0.25)
    assert principled.inputs["Base Color"].is_linked and principled.inputs["Normal"].is_linked
    (albedo,) = [image for image in bpy.data.images if image.name.startswith("Red_Ball_LOD0_albedo")]
    pixels = np.array(albedo.pixels[:]).reshape(-1, 4)[:, :3]
    # display sRGB of linear 0.5 and 0.05, to half a level of 8 bits, in every texel
    assert np.abs(pixels - [0.7354, 0.2480, 0.2480]).max() < 0.004
    assert not list((at.module("addon_state").user_folder() / "finish").iterdir())


def test_cancel_imports_nothing(at: AddonDriver) -> None:
    ball()
    before = set(bpy.data.objects)
    bpy.ops.dreamwright.finish_mesh(**QUICK)
    assert bpy.ops.dreamwright.cancel_finish() == {"FINISHED"}
    assert wait(at) == "Finishing “Red Ball” was cancelled"
    assert set(bpy.data.objects) == before and not list((at.module("addon_state").user_folder() / "finish").iterdir())


def test_faults_are_one_sentence(at: AddonDriver) -> None:
    source = ball()
    with pytest.raises(RuntimeError, match="No step is chosen"):
        bpy.ops.dreamwright.finish_mesh(steps=set())
    before = set(bpy.data.objects)
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.delete(type="ONLY_FACE")
    bpy.ops.object.mode_set(mode="OBJECT")
    with pytest.raises(RuntimeError, match="has no faces; choose a mesh with faces"):
        bpy.ops.dreamwright.finish_mesh(**QUICK)
    source.data.clear_geometry()
    source.data.from_pydata([(0, 0, 0), (1, 0, 0), (2, 0, 0)], [], [(0, 1, 2)])
    bpy.ops.dreamwright.finish_mesh(**QUICK)
    said = wait(at)
    assert said.startswith("“Red Ball” was not finished: none of the mesh's 1 triangles has an area"), said
    assert set(bpy.data.objects) == before
