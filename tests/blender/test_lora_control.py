# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRAs in the panel: the server's names only, for models that take them, sent as the setting model.loras."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

bpy = pytest.importorskip("bpy")

from tests.testing.addon_driver import AddonDriver, why_not
from tests.testing.posed_objects import cube
from tests.testing.recording_layout import draw_all


@pytest.fixture
def at(blender: AddonDriver, serve: Any) -> AddonDriver:
    blender.connect(serve("--pace", "200").address)
    blender.panel.model_name = "giant"  # of the family latent
    return blender


def settings_of(blender: AddonDriver, job: str) -> dict[str, Any]:
    return dict(blender.session.jobs[job].settings)


def test_names_are_added_once_and_sent(at: AddonDriver) -> None:
    assert bpy.ops.dreamwright.add_lora(lora="clay") == {"FINISHED"}
    assert bpy.ops.dreamwright.add_lora(lora="clay") == {"FINISHED"}
    assert at.panel.loras == "clay:1"
    at.panel.loras = " clay:0.8 ;"
    bpy.ops.dreamwright.add_lora(lora="detail")
    assert at.panel.loras == "clay:0.8; detail:1"
    assert settings_of(at, at.generate("a dragon"))["model.loras"] == "clay:0.8; detail:1"
    at.panel.loras = " "
    assert "model.loras" not in settings_of(at, at.generate("a dragon"))


def test_only_models_that_take_loras_have_the_control(at: AddonDriver) -> None:
    bpy.ops.dreamwright.add_lora(lora="clay")
    at.panel.model_name = "starter"
    assert "The chosen model takes no LoRAs" in why_not(bpy.ops.dreamwright.add_lora)
    assert "model.loras" not in settings_of(at, at.generate())
    draw_all(at.module("panel"))
    at.panel.model_name = "giant"
    draw_all(at.module("panel"))
    at.session.capabilities = replace(at.session.capabilities, loras=())
    assert "This server offers no LoRAs" in why_not(bpy.ops.dreamwright.add_lora)


def test_a_name_that_the_server_does_not_offer_is_no_choice(at: AddonDriver) -> None:
    with pytest.raises(TypeError, match="not found in"):
        bpy.ops.dreamwright.add_lora(lora="/home/me/own.safetensors")


def test_a_refinement_has_the_panel_s_loras(at: AddonDriver) -> None:
    cube()
    bpy.ops.dreamwright.add_lora(lora="detail")
    before = set(at.session.jobs)
    assert bpy.ops.dreamwright.refine_mesh(prompt="a dragon") == {"FINISHED"}
    assert at.poll(lambda: len(at.session.jobs) > len(before)), at.notices()
    (job,) = set(at.session.jobs) - before
    assert settings_of(at, job)["model.loras"] == "detail:1"


def test_generate_again_fills_them_in(at: AddonDriver) -> None:
    bpy.ops.dreamwright.add_lora(lora="clay")
    made = at.imported(at.finished("a dragon"))
    at.panel.loras = ""
    bpy.context.view_layer.objects.active = made
    assert bpy.ops.dreamwright.generate_again(only_fill=True) == {"FINISHED"}
    assert at.panel.loras == "clay:1"
