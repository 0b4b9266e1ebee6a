# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator Refine Selected Mesh: when it is disabled, what it refuses, what it submits."""

from __future__ import annotations

from typing import Any

import pytest

bpy = pytest.importorskip("bpy")

from tests.testing.addon_driver import AddonDriver, why_not
from tests.testing.posed_objects import cube
from tests.testing.recording_layout import draw_all
from tests.testing.refinement import refine


@pytest.fixture
def at(blender: AddonDriver, serve: Any) -> AddonDriver:
    blender.connect(serve("--pace", "200").address)
    return blender


def test_refine_button_is_disabled_with_a_reason(blender: AddonDriver, serve: Any) -> None:
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


def test_unusable_meshes_and_prompts_are_refused(at: AddonDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    source = cube()

    def error_of(**options: Any) -> str:
        with pytest.raises(RuntimeError) as caught:
            bpy.ops.dreamwright.refine_mesh(**({"prompt": "a red chair"} | options))
        return str(caught.value)

    assert "The prompt is empty" in error_of(prompt=" ")
    assert "does not know 'dragon'" in error_of(prompt="a red dragon")
    source.scale = (1, 0, 1)
    bpy.context.view_layer.update()
    assert "scaled to zero along an axis" in error_of()
    source.scale = (1, 1, 1)
    monkeypatch.setattr(at.module("object_mesh"), "MESH_VERTICES", 7)
    assert "has 8 vertices and 12 triangles; allowed are 7" in error_of()
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.delete(type="ONLY_FACE")
    bpy.ops.object.mode_set(mode="OBJECT")
    assert "has no faces" in error_of()
    assert not at.session.jobs and not at.session.pending


def test_dialog_settings_are_submitted(at: AddonDriver) -> None:
    cube()
    at.panel.seed = 17
    job = at.session.jobs[refine(at, change="COLORS", steps=33)]
    assert job.settings == {"refine.strength": 0.25, "run.steps": 33, "refine.positions": False}
    assert (job.preset, job.model, job.seed, job.steps, len(job.mesh)) == ("refine", "starter", 17, 33, 64)


def test_panel_shows_refine_button_and_upload_progress(at: AddonDriver) -> None:
    without = len(draw_all(at.module("panel")))
    cube()
    texts = draw_all(at.module("panel"))
    assert len(texts) == without, "an operator's button leaves no text here, and no row is new"
    at.session.pending["t"] = at.module("shared.messages").SubmitJob(
        "t", "a cup", "", "m", "refine", 0, {}, mesh="a" * 64
    )
    at.session.submissions.uploads.uploads["t"] = type("Half", (), {"share": 0.5, "cancel": lambda self: None})()
    assert any("50 % sent: “a cup”" in text for text in draw_all(at.module("panel")))
