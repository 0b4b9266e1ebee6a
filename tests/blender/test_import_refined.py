# SPDX-License-Identifier: GPL-3.0-or-later
"""A refined mesh becomes a copy of its source, a shape key, or a separate object. The fake server moves it up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy")

from tests.testing.addon_driver import AddonDriver, why_not
from tests.testing.fake_props import RED
from tests.testing.posed_objects import colors, cube, mirrored, sheared, turned, world
from tests.testing.refinement import STRENGTH, import_result, lifted, refine


@pytest.fixture
def at(blender: AddonDriver, serve: Any) -> AddonDriver:
    blender.connect(serve("--pace", "200").address)
    return blender


@pytest.mark.parametrize(
    "pose", [lambda owner: None, turned, mirrored, sheared], ids=["plain", "turned", "mirrored", "sheared"]
)
def test_result_as_new_object_at_the_sources_place(at: AddonDriver, pose: Any) -> None:
    source = cube()
    pose(source)
    where, kept = world(source), [list(vertex.co) for vertex in source.data.vertices]
    assert "Imported “a red chair” as a new object" in import_result(at, refine(at))
    made = bpy.context.view_layer.objects.active
    assert (
        made != source and bpy.context.selected_objects == [made] and made.users_collection == source.users_collection
    )
    # Here and below: float32 coordinates of up to 5 through two matrices (2.4e-7 each, ten times); colors are float32.
    assert np.abs(world(made) - lifted(where)).max() < 1e-5
    assert [list(vertex.co) for vertex in source.data.vertices] == kept and source.data.shape_keys is None
    assert len(made.data.polygons) == 6, "quads stay quads"
    assert np.allclose(colors(made.data.color_attributes.active_color), RED, atol=1e-6)
    principled = next(node for node in made.data.materials[0].node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    assert principled.inputs["Base Color"].links[0].from_node.layer_name == made.data.color_attributes.active_color.name
    assert (
        made["dreamwright_prompt"] == "a red chair"
        and made["dreamwright_refined_sha256"] == at.session.jobs[made["dreamwright_job"]].mesh
    )
    assert not [key for key in list(made.keys()) if "source" in key]
    assert "not made by Dreamwright" in why_not(bpy.ops.dreamwright.generate_again), "no prompt alone makes it again"


def test_result_as_shape_key_with_color_attribute(at: AddonDriver) -> None:
    source = cube()
    mirrored(source)
    where, kept = world(source), [list(vertex.co) for vertex in source.data.vertices]
    notice = import_result(at, refine(at, "SHAPE_KEY"))
    assert "“Crate” has the shape key “Dreamwright: a red chair”; its colors are in the color attribute" in notice
    assert len(bpy.data.objects) == 1
    basis, key = source.data.shape_keys.key_blocks
    assert (basis.name, key.name, key.value) == (
        "Basis",
        "Dreamwright: a red chair",
        1.0,
    ) and source.active_shape_key == key
    assert [list(point.co) for point in basis.data] == kept
    shown = source.evaluated_get(bpy.context.evaluated_depsgraph_get())
    assert np.abs(world(source, shown.data) - lifted(where)).max() < 1e-5
    assert np.allclose(colors(source.data.color_attributes["Dreamwright: a red chair"]), RED, atol=1e-6)
    import_result(at, refine(at, "SHAPE_KEY", change="SHAPE"))
    assert [block.name for block in source.data.shape_keys.key_blocks][2:] == ["Dreamwright: a red chair.001"]
    assert len(source.data.color_attributes) == 1, "only the shape was asked for"


def test_active_color_attribute_stays_active(at: AddonDriver) -> None:
    source = cube()
    own = source.data.color_attributes.new("Painted", "BYTE_COLOR", "CORNER")
    source.data.color_attributes.active_color = own
    import_result(at, refine(at, "SHAPE_KEY"))
    assert source.data.color_attributes.active_color.name == "Painted" and len(source.data.color_attributes) == 2


def test_changed_vertex_count_gives_a_new_object(at: AddonDriver) -> None:
    source = cube()
    turned(source)
    where = world(source)
    job = refine(at, "SHAPE_KEY")
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.select_all(action="SELECT")
    bpy.ops.mesh.subdivide()
    assert "“Crate” had 8 vertices when it was sent and has 26 now, so “a red chair” is a new object" in import_result(
        at, job
    )
    made = bpy.context.view_layer.objects.active
    assert (
        made.mode == "OBJECT"
        and source.mode == "OBJECT"
        and source.data.shape_keys is None
        and len(source.data.vertices) == 26
    )
    assert np.abs(world(made) - lifted(where)).max() < 1e-5 and len(made.data.polygons) == 12


def test_deleted_source_gives_a_separate_object(at: AddonDriver) -> None:
    source = cube()
    turned(source)
    where = world(source)
    job = refine(at)
    bpy.data.objects.remove(source)
    bpy.context.scene.cursor.location = (9, 9, 9)
    assert "“Crate” is missing or has changed" in import_result(at, job)
    assert np.abs(world(bpy.context.view_layer.objects.active) - lifted(where)).max() < 1e-5


def test_modifiers_are_applied_or_refused(at: AddonDriver) -> None:
    source = cube()
    source.modifiers.new("Rounder", "SUBSURF").levels = 1
    with pytest.raises(
        RuntimeError, match="make 26 vertices of its 8, which a shape key cannot hold; choose New Object"
    ):
        bpy.ops.dreamwright.refine_mesh(prompt="a red chair", result="SHAPE_KEY")
    shown = world(source, source.evaluated_get(bpy.context.evaluated_depsgraph_get()).data)
    import_result(at, refine(at))
    made = bpy.context.view_layer.objects.active
    assert len(made.data.vertices) == 26 and not made.modifiers and np.abs(world(made) - lifted(shown)).max() < 1e-5
    source.modifiers[0].show_viewport = False
    assert "shape key" in import_result(at, refine_of(at, source))


def test_materials_and_color_borders_are_kept(
    at: AddonDriver,
) -> None:
    """Red and its opposite at the corners of each vertex: their mean goes to red, and so do both by as much."""
    source = cube()
    material = bpy.data.materials.new("shows")
    material.use_nodes = True
    material.node_tree.nodes.new("ShaderNodeVertexColor").layer_name = "Corners"
    source.data.materials.append(material)
    attribute = source.data.color_attributes.new("Corners", "FLOAT_COLOR", "CORNER")
    source.data.color_attributes.active_color = attribute
    for index in range(len(source.data.loops)):
        attribute.data[index].color = (0.2, 0.3, 0.5 if source.data.polygons[0].loop_start <= index < 4 else 0.1, 1)
    import_result(at, refine(at))
    made = bpy.context.view_layer.objects.active
    assert [slot.material for slot in made.material_slots] == [material]
    after = colors(made.data.color_attributes["Corners"])
    assert np.allclose(after[:, 0], RED[0], atol=1e-5)
    first = made.data.polygons[0].vertices[0]
    blue = sorted(after[index, 2] for index, loop in enumerate(made.data.loops) if loop.vertex_index == first)
    mean = (0.5 + 0.1 + 0.1) / 3
    assert blue == pytest.approx(sorted(max(0.0, value + RED[2] - mean) for value in (0.5, 0.1, 0.1)), abs=1e-5)
    import_result(at, refine(at, change="SHAPE"))
    assert np.allclose(colors(bpy.context.view_layer.objects.active.data.color_attributes["Corners"]), after, atol=1e-6)


def test_automatic_refine_import_waits_for_object_mode(at: AddonDriver, serve: Any) -> None:
    source = cube()
    at.panel.import_when_done = True
    bpy.ops.dreamwright.refine_mesh(prompt="a red chair", strength=STRENGTH, result="SHAPE_KEY")
    bpy.ops.object.mode_set(mode="EDIT")
    assert at.poll(lambda: "will be imported when you return to Object Mode" in at.notices())
    assert source.data.shape_keys is None
    bpy.ops.object.mode_set(mode="OBJECT")
    assert at.poll(lambda: source.data.shape_keys is not None)


@pytest.mark.parametrize("change", ["renamed", "copied"])
def test_source_is_found_in_a_reopened_file(at: AddonDriver, tmp_path: Path, change: str) -> None:
    source = cube()
    job = refine(at, "SHAPE_KEY")
    if change == "renamed":
        source.name = "Another"
        bpy.ops.mesh.primitive_cube_add(size=2.0)
        bpy.context.active_object.name = "Crate"
    else:
        bpy.ops.object.duplicate()
    path = str(tmp_path / "scene.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.read_homefile(use_empty=True)
    at.poll(seconds=0.05)
    bpy.ops.wm.open_mainfile(filepath=path)
    assert f"“{'Another' if change == 'renamed' else 'Crate'}” has the shape key" in import_result(at, job)
    assert len(bpy.data.objects) == 2 and sum(one.data.shape_keys is not None for one in bpy.data.objects) == 1


def test_refined_import_is_one_undo_step(at: AddonDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    cube()
    pushed: list[str] = []
    monkeypatch.setattr(at.module("placement"), "push_undo", pushed.append)
    for result in ("OBJECT", "SHAPE_KEY"):
        import_result(at, refine_of(at, bpy.data.objects["Crate"]) if result == "SHAPE_KEY" else refine(at))
    assert pushed == ["Refine: a red chair"] * 2


def refine_of(at: AddonDriver, source: Any) -> str:
    bpy.context.view_layer.objects.active = source
    source.select_set(True)
    return refine(at, "SHAPE_KEY")
