# SPDX-License-Identifier: GPL-3.0-or-later
"""The installed add-on in Blender, driven by script, with a fake server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy")

from tests.testing.addon_driver import AddonDriver, why_not
from tests.testing.fake_props import ball
from tests.testing.installed_addon import PACKAGE

# --- installation


def test_controls_have_names_and_tooltips(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve().address)
    operators = [getattr(bpy.types, name) for name in dir(bpy.types) if name.startswith("DREAMWRIGHT_OT_")]
    groups = [type(blender.panel), type(blender.preferences), type(bpy.context.window_manager.dreamwright_settings)]
    assert len(operators) >= 18
    for kind in operators:
        rna = getattr(bpy.ops.dreamwright, kind.bl_idname.partition(".")[2]).get_rna_type()
        assert rna.name and rna.description and not rna.description.endswith("."), kind
    inherited = {"rna_type", "name", "properties", "remove_name", "remove_active"} | set(
        bpy.types.Operator.bl_rna.properties.keys()
    )
    for kind in (*operators, *groups):
        for known in kind.bl_rna.properties:
            if known.identifier not in inherited:
                assert known.name and known.description and not known.description.endswith("."), (
                    kind,
                    known.identifier,
                )


def test_manifest_and_bl_info_agree(blender: AddonDriver) -> None:
    import tomllib

    folder = Path(blender.module("addon_state").__file__).parent
    manifest = tomllib.loads((folder / "blender_manifest.toml").read_text())
    info = sys.modules[PACKAGE].bl_info
    assert manifest["version"] == ".".join(map(str, info["version"])) and manifest["name"] == info["name"]
    assert manifest["license"] == ["SPDX:GPL-3.0-or-later"] and manifest["blender_version_min"] == "4.2.0"
    for text in (manifest["tagline"], *manifest["permissions"].values()):
        assert len(text) <= 64 and text[-1].isalnum()
    assert set(manifest["permissions"]) == {"network", "files", "clipboard"}


# --- the main line


def test_import_makes_object_material_colors_and_provenance(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "8").address)
    blender.panel.height_m = 0.5
    blender.panel.seed = 11
    bpy.context.scene.cursor.location = (1, 2, 3)
    made = blender.imported(blender.finished())

    assert made.name.startswith("a red mushroom") and made is not None
    assert bpy.context.view_layer.objects.active == made and bpy.context.selected_objects == [made]
    assert tuple(made.location) == (1, 2, 3) and tuple(made.scale) == (1, 1, 1)
    corners = np.array([corner[:] for corner in made.bound_box])
    # float32 coordinates of up to 0.5 with a few roundings of 3e-8.
    assert corners[:, 2].min() == pytest.approx(0, abs=2.5e-7), "the origin is at the base"
    assert corners[:, 2].max() == pytest.approx(0.5, abs=2.5e-7), "metres"

    expected = ball(height=0.5)
    assert len(made.data.vertices) == len(expected.vertices) and len(made.data.polygons) == len(expected.faces)
    assert all(polygon.use_smooth for polygon in made.data.polygons)
    assert not made.data.validate(), "Blender finds nothing to mend"
    attribute = made.data.color_attributes["albedo"]
    assert (attribute.data_type, attribute.domain) == ("FLOAT_COLOR", "POINT")
    colors = np.empty(4 * len(attribute.data), np.float32)
    attribute.data.foreach_get("color", colors)
    assert np.array_equal(colors.reshape(-1, 4)[:, :3], expected.albedo), "linear, to the last bit"

    material = made.data.materials[0]
    principled = next(node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    source = principled.inputs["Base Color"].links[0].from_node
    assert (source.bl_idname, source.layer_name) == ("ShaderNodeVertexColor", "albedo")
    assert principled.inputs["Roughness"].default_value == pytest.approx(0.6)

    assert made["dreamwright_prompt"] == "a red mushroom" and made["dreamwright_seed"] == 11
    assert made["dreamwright_model"] == "starter" and made["dreamwright_preset"] == "standard"
    assert made["dreamwright_job"] == "job-1" and made["dreamwright_version"] == "0.1.0"
    assert made["dreamwright_backend"] == "fake"
    assert json.loads(made["dreamwright_settings"])["mesh.height_m"] == 0.5


def test_import_is_one_undo_step_and_can_be_repeated(
    blender: AddonDriver, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    blender.connect(serve("--pace", "20").address)
    job = blender.finished()
    pushed: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(blender.module("placement"), "push_undo", pushed.append)
        name = blender.imported(job).name
    assert pushed == ["Import: a red mushroom"], "one step, named after the prompt"
    # Blender as a module keeps no undo stack; the test does to the data what an undo does.
    bpy.data.objects.remove(bpy.data.objects[name])
    blender.poll(seconds=0.1)
    assert blender.session.jobs[job].state == "succeeded"
    assert blender.imported(job).name in bpy.data.objects


def test_previews_are_shown_and_kept_in_history(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--size", "32", "--steps", "30").address)
    job = blender.generate()
    assert blender.poll(lambda: len(blender.session.previews.get(job, ())) >= 5)
    image = bpy.data.images["Dreamwright Preview"]
    assert tuple(image.size) == (32, 32) and not image.is_float and image.colorspace_settings.name == "sRGB"
    blender.poll(lambda: blender.session.jobs[job].state == "succeeded")
    blender.poll(seconds=0.1)

    def seen() -> np.ndarray:
        pixels = np.empty(32 * 32 * 4, np.float32)
        bpy.data.images["Dreamwright Preview"].pixels.foreach_get(pixels)
        return pixels.reshape(32, 32, 4)

    steps = [blender.session.previews[job].at(share).step for share in (0, 1)]
    assert steps[0] < steps[1] == 30
    # Half a level of 8 bits is 2e-3.
    assert seen()[-1, :, :3].min() == 1, "the picture's top row is Blender's last"
    assert seen()[0, 0, 0] == pytest.approx(30 / 255, abs=2e-3) and seen()[0, 0, 3] == 1
    blender.panel.preview_position = 0
    assert seen()[0, 0, 0] == pytest.approx(steps[0] / 255, abs=2e-3)
    assert bpy.ops.dreamwright.step_preview(offset=1) == {"FINISHED"}
    assert steps[0] / 255 < seen()[0, 0, 0] < 30 / 255
    assert bpy.ops.dreamwright.step_preview(offset=0) == {"FINISHED"} and blender.panel.preview_position == 1
    bpy.data.images.remove(bpy.data.images["Dreamwright Preview"])  # as an undo does
    blender.module("preview").show_current()
    assert seen()[0, 0, 0] == pytest.approx(30 / 255, abs=2e-3)


def test_new_previews_do_not_move_the_slider(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--steps", "2000").address)
    job = blender.generate()
    assert blender.poll(lambda: len(blender.session.previews.get(job, ())) >= 6)
    blender.panel.preview_position = 0
    shown = blender.module("preview")._shown
    held = len(blender.session.previews[job])
    assert blender.poll(lambda: len(blender.session.previews[job]) > held + 3)
    assert blender.module("preview")._shown is shown


def test_pause_resume_cancel_import_delete(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--steps", "2000").address)
    job = blender.generate()

    def becomes(state: str) -> bool:
        return blender.poll(lambda: blender.session.jobs[job].state == state)

    assert becomes("running")
    assert bpy.ops.dreamwright.pause() == {"FINISHED"} and becomes("paused")
    assert "Only a queued or running job" in why_not(bpy.ops.dreamwright.pause)
    assert bpy.ops.dreamwright.resume() == {"FINISHED"} and becomes("running")
    assert "cancel it first" in why_not(bpy.ops.dreamwright.delete_job)
    assert bpy.ops.dreamwright.cancel() == {"FINISHED"} and becomes("cancelled")
    assert blender.imported(job)["dreamwright_job"] == job, "what there was has become a mesh"
    assert bpy.ops.dreamwright.delete_job() == {"FINISHED"}
    assert blender.poll(lambda: not blender.session.jobs and len(blender.panel.job_rows) == 0)


def test_next_seed_and_queue_positions(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--steps", "5000").address)
    blender.panel.prompt = "a red\n  mushroom"
    assert bpy.ops.dreamwright.generate() == {"FINISHED"}
    assert bpy.ops.dreamwright.generate(again=True) == {"FINISHED"}
    assert bpy.ops.dreamwright.generate(again=True) == {"FINISHED"}
    assert blender.poll(lambda: len(blender.session.jobs) == 3 and not blender.session.pending)
    assert sorted(job.seed for job in blender.session.jobs.values()) == [0, 1, 2]
    assert {job.prompt for job in blender.session.jobs.values()} == {"a red mushroom"}
    progress_text = blender.module("labels").progress_text
    # The first job starts before the others receive their new positions, so the answer may take another tick.
    assert blender.poll(
        lambda: (
            {"Next in the queue", "Position 2 in the queue"}
            <= {progress_text(job) for job in blender.session.jobs.values()}
        )
    )


def test_generate_again_uses_the_objects_settings(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "50").address)
    assert "not made by Dreamwright" in why_not(bpy.ops.dreamwright.generate_again)
    panel = blender.panel
    panel.preset, panel.seed, panel.height_m, panel.triangles, panel.negative = "quick", 5, 0.25, 500, "blue"
    bpy.context.window_manager.dreamwright_settings.guidance__omega = 77
    made = blender.imported(blender.finished("a red chair"))
    panel.preset, panel.seed, panel.height_m, panel.triangles, panel.negative = "standard", 0, 1, 900, ""
    panel.settings_text = "{}"
    bpy.context.view_layer.objects.active = made
    known = set(blender.session.jobs)
    assert bpy.ops.dreamwright.generate_again() == {"FINISHED"}
    assert blender.poll(lambda: len(blender.session.jobs) > len(known))
    job = blender.session.jobs[(set(blender.session.jobs) - known).pop()]
    assert (job.prompt, job.negative, job.preset, job.seed) == ("a red chair", "blue", "quick", 6)
    assert job.settings == {"guidance.omega": 77, "mesh.height_m": 0.25, "mesh.triangles": 500}
    assert bpy.ops.dreamwright.generate_again(same_seed=True, only_fill=True) == {"FINISHED"}
    assert panel.seed == 5 and len(blender.session.jobs) == 2


def test_automatic_import_waits_for_object_mode(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "10").address)
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.object.mode_set(mode="EDIT")
    blender.panel.import_when_done = True
    blender.generate()
    assert blender.poll(lambda: "when you return to Object Mode" in blender.notices())
    assert bpy.context.mode == "EDIT_MESH" and len(bpy.data.objects) == 1
    bpy.ops.object.mode_set(mode="OBJECT")
    assert blender.poll(lambda: len(bpy.data.objects) == 2)


def test_import_button_leaves_edit_mode_and_keeps_edits(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "20").address)
    job = blender.finished()
    bpy.ops.mesh.primitive_cube_add()
    cube = bpy.context.object.name
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.subdivide()
    made = blender.imported(job)
    assert bpy.context.mode == "OBJECT" and bpy.context.view_layer.objects.active == made
    assert len(bpy.data.objects[cube].data.vertices) == 26


def test_import_into_an_excluded_collection_is_visible(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "20").address)
    hidden = bpy.data.collections.new("hidden")
    bpy.context.scene.collection.children.link(hidden)
    layer = bpy.context.view_layer.layer_collection.children["hidden"]
    bpy.context.view_layer.active_layer_collection = layer
    layer.exclude = True
    assert blender.imported(blender.finished()).visible_get()


def test_import_marks_an_asset_with_thumbnail(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "4").address)
    blender.panel.mark_as_asset = True
    made = blender.imported(blender.finished())
    assert made.asset_data.description == "a red mushroom"
    assert tuple(made.preview.image_size) == (16, 16)
    pixels = np.array(made.preview.image_pixels_float[:], np.float32).reshape(16, 16, 4)
    # Half a level of 8 bits is 2e-3.
    assert pixels[-1].min() == 1 and pixels[0, 0, 0] == pytest.approx(40 / 255, abs=2e-3), "the last picture, upright"


# --- settings


def test_server_settings_follow_the_preset_until_changed(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve().address)
    values, panel = bpy.context.window_manager.dreamwright_settings, blender.panel
    assert (panel.model, panel.preset) == ("starter", "standard"), (
        "a model that is ready, and the preset that the server names first"
    )
    assert (values.run__steps, values.field__kind, values.guidance__omega) == (400, "mlp", 30)
    assert panel.settings_text == "{}"
    values.guidance__omega = 55
    panel.preset = "quick"
    assert (values.run__steps, values.field__kind, values.guidance__omega) == (40, "voxels", 55)
    assert json.loads(panel.settings_text) == {"guidance.omega": 55}
    steps = type(values).bl_rna.properties["run__steps"]
    assert (steps.hard_min, steps.hard_max, steps.description) == (1, 10_000, "More is finer")


def test_presets_and_defaults_are_those_of_the_models_family(blender: AddonDriver, serve: Any) -> None:
    """A preset means another recipe for a model of another family; values that were typed stay."""
    blender.connect(serve().address)
    values, panel = bpy.context.window_manager.dreamwright_settings, blender.panel
    settings, capabilities = blender.module("server_settings"), blender.session.capabilities
    values.guidance__view_dependent = False
    panel.model = "giant"
    assert (panel.preset, values.run__steps, values.guidance__omega) == ("standard", 9000, 100)
    assert json.loads(panel.settings_text) == {"guidance.view_dependent": False}
    assert settings.offered_presets(capabilities, "giant") == [("standard", "Published")]
    assert settings.recipe_of(capabilities, settings.choice_of(panel)).notice == "recipe: a paper"
    steps = settings.find_setting(capabilities, "run.steps")
    assert settings.default_of(capabilities, steps, settings.Choice("giant", "refine")) == 5000
    panel.model = "starter"
    assert (values.run__steps, values.guidance__omega, values.guidance__view_dependent) == (400, 30, False)
    assert [name for name, _ in settings.offered_presets(capabilities, "starter")] == ["standard", "quick"]


def test_cached_capabilities_are_drawn_offline(blender: AddonDriver, serve: Any) -> None:
    server = serve()
    blender.connect(server.address)
    bpy.ops.dreamwright.disconnect()
    server.kill()
    blender.module("addon_state").unregister()
    assert [preset.name for preset in blender.session.capabilities.presets] == ["standard", "quick"]
    assert not blender.session.is_online


def test_properties_survive_loading_a_file(blender: AddonDriver, serve: Any, tmp_path: Path) -> None:
    blender.connect(serve("--steps", "5000").address)
    panel = blender.panel
    panel.prompt, panel.preset, panel.seed = "a blue chair", "quick", 9
    bpy.context.window_manager.dreamwright_settings.guidance__omega = 12
    job = blender.generate()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "one.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "one.blend"))
    panel = blender.panel
    assert (panel.prompt, panel.preset, panel.seed) == ("a blue chair", "quick", 9)
    assert bpy.context.window_manager.dreamwright_settings.guidance__omega == 12
    assert [row.job for row in panel.job_rows] == [job]
    step = blender.session.jobs[job].step
    assert blender.poll(lambda: blender.session.jobs[job].step > step), "the stream goes on"


def test_saved_files_contain_no_add_on_state(blender: AddonDriver, serve: Any, tmp_path: Path) -> None:
    blender.connect(serve().address)
    blender.generate()
    assert not [key for key in list(bpy.context.scene.keys()) if "dreamwright" in key.lower()]
    assert not [name for name in dir(bpy.types.Scene) if "dreamwright" in name.lower()]


def test_user_presets_restore_settings(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve().address)
    panel = blender.panel
    panel.preset, panel.height_m, panel.prompt = "quick", 0.125, "a red chair"
    bpy.context.window_manager.dreamwright_settings.guidance__omega = 66
    assert bpy.ops.dreamwright.preset_add(name="Small and Quick") == {"FINISHED"}
    panel.preset, panel.height_m = "standard", 3
    panel.settings_text = "{}"
    found = bpy.utils.preset_find("small_and_quick", "dreamwright/props", ext=".py") or bpy.utils.preset_find(
        "Small_and_Quick", "dreamwright/props", ext=".py"
    )
    assert bpy.ops.script.execute_preset(filepath=found, menu_idname="DREAMWRIGHT_MT_presets") == {"FINISHED"}
    assert (panel.preset, panel.height_m, panel.prompt) == ("quick", 0.125, "a red chair")
    assert bpy.context.window_manager.dreamwright_settings.guidance__omega == 66
