# SPDX-License-Identifier: GPL-3.0-or-later
"""An artist refines an object of the scene: what is sent of it, and what comes back, against a stand-in that lifts a mesh by its strength."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy")

from tests.testing.addon_driver import AddonDriver, why_not
from tests.testing.fake_props import RED
from tests.testing.posed_objects import colors, cube, mirrored, sheared, turned, world

STRENGTH = 0.25


def lifted(where: np.ndarray) -> np.ndarray:
    return where + [0, 0, STRENGTH]


def refine(blender: AddonDriver, result: str = "OBJECT", **options: Any) -> str:
    known = set(blender.session.jobs)
    assert bpy.ops.dreamwright.refine_mesh(prompt="a red chair", strength=STRENGTH, result=result, **options) == {
        "FINISHED"
    }
    assert blender.poll(lambda: bool(set(blender.session.jobs) - known) and not blender.session.pending), (
        blender.notices()
    )
    job = (set(blender.session.jobs) - known).pop()
    assert blender.poll(lambda: blender.session.jobs[job].state == "succeeded"), blender.session.jobs[job]
    return job


def bring(blender: AddonDriver, job: str) -> str:
    """Import, and what is told of it."""
    blender.session.notices.clear()
    assert bpy.ops.dreamwright.import_mesh(job=job) == {"FINISHED"}
    assert blender.poll(lambda: bool(blender.session.notices))
    return blender.notices()


@pytest.fixture
def at(blender: AddonDriver, serve: Any) -> AddonDriver:
    blender.connect(serve("--pace", "200").address)
    return blender


@pytest.mark.parametrize(
    "pose", [lambda owner: None, turned, mirrored, sheared], ids=["plain", "turned", "mirrored", "sheared"]
)
def test_the_result_is_a_new_object_where_the_source_stands_and_the_source_stays_as_it_was(
    at: AddonDriver, pose: Any
) -> None:
    source = cube()
    pose(source)
    where, kept = world(source), [list(vertex.co) for vertex in source.data.vertices]
    assert "Imported “a red chair” as a new object" in bring(at, refine(at))
    made = bpy.context.view_layer.objects.active
    assert (
        made != source and bpy.context.selected_objects == [made] and made.users_collection == source.users_collection
    )
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
    assert not [key for key in made.keys() if "source" in key]
    assert "not made by Dreamwright" in why_not(bpy.ops.dreamwright.generate_again), "no prompt alone makes it again"


@pytest.mark.parametrize("pose", [turned, mirrored, sheared], ids=["turned", "mirrored", "sheared"])
def test_what_is_sent_stands_as_in_the_world_with_its_faces_outwards_and_its_origin_at_zero(
    blender: AddonDriver, pose: Any
) -> None:
    """The signed volume of a closed mesh is positive when its faces are counter-clockwise from outside."""
    source = cube()
    pose(source)
    sent = blender.module("object_mesh").extract_mesh(bpy.context, source, False)
    assert np.abs(sent.vertices - (world(source) - np.array(source.matrix_world.translation))).max() < 1e-5
    a, b, c = (sent.vertices[sent.faces[:, corner]].astype(np.float64) for corner in range(3))
    bpy.context.view_layer.update()
    assert np.einsum("ij,ij->", a, np.cross(b, c)) / 6 == pytest.approx(
        abs(source.matrix_world.to_3x3().determinant()), rel=1e-5
    )
    center = sent.vertices.mean(axis=0)
    assert (np.einsum("ij,ij->i", sent.normals, sent.vertices - center) > 0).all() and np.allclose(
        np.linalg.norm(sent.normals, axis=1), 1, atol=1e-5
    )


def test_the_result_is_a_shape_key_of_the_source_with_its_colors_beside(at: AddonDriver) -> None:
    source = cube()
    mirrored(source)
    where, kept = world(source), [list(vertex.co) for vertex in source.data.vertices]
    told = bring(at, refine(at, "SHAPE_KEY"))
    assert "“Crate” has the shape key “Dreamwright: a red chair” and the color attribute" in told
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
    bring(at, refine(at, "SHAPE_KEY", change="SHAPE"))
    assert [block.name for block in source.data.shape_keys.key_blocks][2:] == ["Dreamwright: a red chair.001"]
    assert len(source.data.color_attributes) == 1, "only the shape was asked for"


def test_a_color_attribute_that_is_shown_stays_the_one_that_is_shown_beside_a_shape_keys(at: AddonDriver) -> None:
    source = cube()
    own = source.data.color_attributes.new("Painted", "BYTE_COLOR", "CORNER")
    source.data.color_attributes.active_color = own
    bring(at, refine(at, "SHAPE_KEY"))
    assert source.data.color_attributes.active_color.name == "Painted" and len(source.data.color_attributes) == 2


def test_an_object_with_another_number_of_vertices_now_gets_a_new_object_and_a_sentence(at: AddonDriver) -> None:
    source = cube()
    turned(source)
    where = world(source)
    job = refine(at, "SHAPE_KEY")
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.select_all(action="SELECT")
    bpy.ops.mesh.subdivide()
    assert "“Crate” had 8 vertices when it was sent and has 26 now, so “a red chair” is a new object" in bring(at, job)
    made = bpy.context.view_layer.objects.active
    assert (
        made.mode == "OBJECT"
        and source.mode == "OBJECT"
        and source.data.shape_keys is None
        and len(source.data.vertices) == 26
    )
    assert np.abs(world(made) - lifted(where)).max() < 1e-5 and len(made.data.polygons) == 12


def test_a_source_that_is_gone_leaves_the_result_by_itself_where_it_stood(at: AddonDriver) -> None:
    source = cube()
    turned(source)
    where = world(source)
    job = refine(at)
    bpy.data.objects.remove(source)
    bpy.context.scene.cursor.location = (9, 9, 9)
    assert "“Crate” is not there as it was sent" in bring(at, job)
    assert np.abs(world(bpy.context.view_layer.objects.active) - lifted(where)).max() < 1e-5


def test_modifiers_are_in_a_new_object_and_are_told_where_a_shape_key_cannot_hold_them(at: AddonDriver) -> None:
    source = cube()
    source.modifiers.new("Rounder", "SUBSURF").levels = 1
    with pytest.raises(RuntimeError, match="make 26 vertices of its 8, which no shape key can hold; choose New Object"):
        bpy.ops.dreamwright.refine_mesh(prompt="a red chair", result="SHAPE_KEY")
    shown = world(source, source.evaluated_get(bpy.context.evaluated_depsgraph_get()).data)
    bring(at, refine(at))
    made = bpy.context.view_layer.objects.active
    assert len(made.data.vertices) == 26 and not made.modifiers and np.abs(world(made) - lifted(shown)).max() < 1e-5
    source.modifiers[0].show_viewport = False
    assert "shape key" in bring(at, refine_of(at, source))


def refine_of(at: AddonDriver, source: Any) -> str:
    bpy.context.view_layer.objects.active = source
    source.select_set(True)
    return refine(at, "SHAPE_KEY")


# --- colors


def test_each_kind_of_color_is_sent_linear_by_vertex(blender: AddonDriver) -> None:
    sent = lambda: blender.module("object_mesh").extract_mesh(bpy.context, source, False).albedo  # noqa: E731
    source = cube()
    assert np.allclose(sent(), 0.2140411), "grey where nothing says otherwise"
    for color in ((0.8, 0.1, 0.2, 1), (0.1, 0.6, 0.3, 1)):
        material = bpy.data.materials.new("paint")
        material.use_nodes = True
        material.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = color
        source.data.materials.append(material)
    source.data.polygons[0].material_index = 1
    corner = source.data.polygons[0].vertices[0]
    expected = (np.array([0.1, 0.6, 0.3]) + 2 * np.array([0.8, 0.1, 0.2])) / 3
    assert np.allclose(sent()[corner], expected, atol=1e-6), "of its three faces one has the second material"
    corners = source.data.color_attributes.new("Corners", "BYTE_COLOR", "CORNER")
    source.data.color_attributes.active_color = corners
    for index, loop in enumerate(source.data.loops):
        corners.data[index].color = (0.5, loop.vertex_index / 8, 0.0, 1)
    assert np.allclose(sent()[:, 0], 0.5, atol=0.01) and np.allclose(sent()[:, 1], np.arange(8) / 8, atol=0.01)
    points = source.data.color_attributes.new("Points", "FLOAT_COLOR", "POINT")
    points.data.foreach_set("color", np.repeat(np.linspace(0, 1, 8), 4).astype(np.float32))
    source.data.color_attributes.active_color = source.data.color_attributes["Points"]
    assert np.allclose(sent()[:, 2], np.linspace(0, 1, 8), atol=1e-6)


def test_materials_that_show_the_colors_stay_and_a_border_between_two_colors_at_a_vertex_stays_a_border(
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
    for index, loop in enumerate(source.data.loops):
        attribute.data[index].color = (0.2, 0.3, 0.5 if source.data.polygons[0].loop_start <= index < 4 else 0.1, 1)
    bring(at, refine(at))
    made = bpy.context.view_layer.objects.active
    assert [slot.material for slot in made.material_slots] == [material]
    after = colors(made.data.color_attributes["Corners"])
    assert np.allclose(after[:, 0], RED[0], atol=1e-5)
    first = made.data.polygons[0].vertices[0]
    blue = sorted(after[index, 2] for index, loop in enumerate(made.data.loops) if loop.vertex_index == first)
    mean = (0.5 + 0.1 + 0.1) / 3
    assert blue == pytest.approx(sorted(max(0.0, value + RED[2] - mean) for value in (0.5, 0.1, 0.1)), abs=1e-5)
    bring(at, refine(at, change="SHAPE"))
    assert np.allclose(colors(bpy.context.view_layer.objects.active.data.color_attributes["Corners"]), after, atol=1e-6)


# --- when it cannot be, and in between


def test_a_greyed_button_says_what_is_missing(blender: AddonDriver, serve: Any) -> None:
    button = bpy.ops.dreamwright.refine_mesh
    assert "Select the mesh object" in why_not(button)
    source = cube()
    assert "Not connected to a server" in why_not(button)
    blender.connect(serve("--pace", "200").address)
    bpy.ops.object.mode_set(mode="EDIT")
    assert "Go to Object Mode first" in why_not(button)
    bpy.ops.object.mode_set(mode="OBJECT")
    source.select_set(False)
    assert "Select the mesh object" in why_not(button)
    source.select_set(True)
    offered = blender.session.capabilities
    blender.session.capabilities = type(offered)(**{**offered.__dict__, "settings": ()})
    assert "refines no meshes" in why_not(button)


def test_what_cannot_be_refined_is_told_before_anything_is_sent(at: AddonDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    source = cube()

    def told(**options: Any) -> str:
        with pytest.raises(RuntimeError) as caught:
            bpy.ops.dreamwright.refine_mesh(**({"prompt": "a red chair"} | options))
        return str(caught.value)

    assert "The prompt is empty" in told(prompt=" ")
    assert "does not know 'dragon'" in told(prompt="a red dragon")
    source.scale = (1, 0, 1)
    bpy.context.view_layer.update()
    assert "scaled to nothing along an axis" in told()
    source.scale = (1, 1, 1)
    monkeypatch.setattr(at.module("object_mesh"), "MESH_VERTICES", 7)
    assert "has 8 vertices and 12 triangles; allowed are 7" in told()
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.delete(type="ONLY_FACE")
    bpy.ops.object.mode_set(mode="OBJECT")
    assert "has no faces" in told()
    assert not at.session.jobs and not at.session.pending


def test_strength_steps_seed_and_model_of_the_dialog_are_what_is_asked_for(at: AddonDriver) -> None:
    cube()
    at.panel.seed = 17
    job = at.session.jobs[refine(at, change="COLORS", steps=33)]
    assert job.settings == {"refine.strength": 0.25, "run.steps": 33, "refine.positions": False}
    assert (job.preset, job.model, job.seed, job.steps, len(job.mesh)) == ("refine", "starter", 17, 33, 64)


def test_a_result_that_comes_by_itself_waits_for_the_end_of_edit_mode(at: AddonDriver, serve: Any) -> None:
    source = cube()
    at.panel.import_when_done = True
    bpy.ops.dreamwright.refine_mesh(prompt="a red chair", strength=STRENGTH, result="SHAPE_KEY")
    bpy.ops.object.mode_set(mode="EDIT")
    assert at.poll(lambda: "imported when you leave Edit Mode" in at.notices())
    assert source.data.shape_keys is None
    bpy.ops.object.mode_set(mode="OBJECT")
    assert at.poll(lambda: source.data.shape_keys is not None)


@pytest.mark.parametrize("change", ["renamed", "copied"])
def test_a_file_saved_and_opened_in_between_gets_its_shape_key_also_when_the_object_was_renamed_or_copied(
    at: AddonDriver, tmp_path: Path, change: str
) -> None:
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
    assert f"“{'Another' if change == 'renamed' else 'Crate'}” has the shape key" in bring(at, job)
    assert len(bpy.data.objects) == 2 and sum(one.data.shape_keys is not None for one in bpy.data.objects) == 1


def test_a_copy_that_is_sent_itself_is_told_from_what_it_was_copied_from(blender: AddonDriver) -> None:
    object_mesh, source = blender.module("object_mesh"), cube()
    first = object_mesh.marked(source)
    assert object_mesh.marked(source) == first
    bpy.ops.object.duplicate()
    copy = bpy.context.active_object
    assert copy[object_mesh.MARK] == first
    second = object_mesh.marked(copy)
    assert second != first and object_mesh.marked(source) == first
    assert (
        object_mesh.find(bpy.context.scene, second, "gone") == copy
        and object_mesh.find(bpy.context.scene, first, copy.name) == source
    )
    assert (
        object_mesh.find(bpy.context.scene, "", "Crate") == source
        and object_mesh.find(bpy.context.scene, "x", "gone") is None
    )


def test_an_import_is_one_undo_step_named_after_the_prompt(at: AddonDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    cube()
    pushed: list[str] = []
    monkeypatch.setattr(at.module("import_mesh"), "push_undo", pushed.append)
    for result in ("OBJECT", "SHAPE_KEY"):
        bring(at, refine_of(at, bpy.data.objects["Crate"]) if result == "SHAPE_KEY" else refine(at))
    assert pushed == ["Refine: a red chair"] * 2


@pytest.mark.parametrize(
    "harm",
    [
        {"source_matrix": "[]"},
        {"source_matrix": "[0,0,0,0,0,0,0,0,0]"},
        {"source_matrix": "[NaN,0,0,0,1,0,0,0,1]"},
        {"source_matrix": 7},
        {"source_location": "x"},
        {"source_object": 5},
    ],
)
def test_facts_that_make_no_sense_leave_an_object_by_itself(blender: AddonDriver, harm: dict[str, Any]) -> None:
    """They come from the server."""
    source = cube()
    sent = blender.module("object_mesh").extract_mesh(bpy.context, source, True)
    origin = blender.module("import_refined").source_of({**sent.facts, **harm})
    assert origin is None or (origin.name == "5" and "source_object" in harm)
    assert blender.module("import_refined").source_of({}) is None


def test_the_panel_shows_the_button_in_a_row_that_is_there_anyway(at: AddonDriver) -> None:
    from tests.testing.recording_layout import draw_all

    without = len(draw_all(at.module("panel")))
    cube()
    texts = draw_all(at.module("panel"))
    assert len(texts) == without, "an operator's button leaves no text here, and no row is new"
    at.session.pending["t"] = at.module("shared.messages").Submit("t", "a cup", "", "m", "refine", 0, {}, mesh="a" * 64)
    at.session.submissions.uploads.uploads["t"] = type("Half", (), {"share": 0.5, "cancel": lambda self: None})()
    assert any("50 % sent: “a cup”" in text for text in draw_all(at.module("panel")))
