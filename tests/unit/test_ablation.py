# SPDX-License-Identifier: GPL-3.0-or-later
"""The stages of figure 6: the settings that each stage adds."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from dreamwright.backend.cameras.poses import sample_cameras
from dreamwright.backend.config.parsing import apply_settings, config_to_mapping
from dreamwright.backend.config.presets import PAPER
from dreamwright.backend.config.recipes.starter import DRAFT, STANDARD
from dreamwright.backend.config.schema import Config
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.evaluation.ablation import FIXED_SETTINGS, STAGE_NAMES, STAGES, stage_config
from dreamwright.backend.rendering.shading import sample_shading
from dreamwright.backend.text.prompts import view_words


def differing(one: Config, other: Config) -> dict[str, object]:
    """Settings of `other` that differ from the base."""
    before, after = config_to_mapping(one), config_to_mapping(other)
    return {f"{s}.{k}": after[s][k] for s in after for k in after[s] if before[s][k] != after[s][k]}


def shading_kinds(config: Config) -> set[str]:
    """Kinds of shading in 200 late views."""
    generator = torch.Generator().manual_seed(0)
    return {sample_shading(config.shading, 0.9, generator).kind for _ in range(200)}


def test_stage_names():
    assert STAGE_NAMES == ("base", "+ViewAug", "+ViewDep", "+Lighting", "+Textureless")
    assert len({stage.folder for stage in STAGES}) == 5


@pytest.mark.parametrize("preset", [PAPER, DRAFT, STANDARD], ids=["paper", "draft", "standard"])
def test_last_stage_equals_the_preset(preset):
    assert stage_config(preset, "+Textureless") == preset


def test_stages_add_the_papers_settings():
    """Section 3.2's and A.2's ranges by hand; 1.25 and 1.025 are the means of [1, 1.5] and U(0.7, 1.35)."""
    stages = [stage_config(PAPER, name) for name in STAGE_NAMES]
    assert differing(PAPER, stages[0]) == pytest.approx({
        "camera.elevation_min": 30.0, "camera.elevation_max": 30.0,
        "camera.distance_min": 1.25, "camera.distance_max": 1.25,
        "camera.focal_min": 1.025, "camera.focal_max": 1.025, "camera.fill_min": 0.725, "camera.fill_max": 0.725,
        "camera.look_at_std": 0.0, "camera.up_std": 0.0, "camera.position_offset": 0.0,
        "guidance.view_dependent": False, "shading.shaded_probability": 0.0, "shading.textureless_probability": 0.0,
    }, rel=1e-12)  # fmt: skip  # means of two numbers in float64: a rounding or two of 1.1e-16
    released = [differing(below, above) for below, above in pairwise(stages)]
    assert {name.split(".")[0] for name in released[0]} == {"camera"} and stages[1].camera == PAPER.camera
    assert released[1:] == [
        {"guidance.view_dependent": True},
        {"shading.shaded_probability": 0.75},
        {"shading.textureless_probability": 0.5},
    ]


def test_opposite_prompts_come_with_view_text():
    preset = apply_settings(DRAFT, ["guidance.opposite_weight=1"])
    below, above = stage_config(preset, "+ViewAug"), stage_config(preset, "+ViewDep")
    assert differing(below, above) == {"guidance.view_dependent": True, "guidance.opposite_weight": 1.0}


@pytest.mark.parametrize(
    ("stage", "elevations", "words", "lit"),
    [
        ("base", "one", "", {"albedo"}),
        ("+ViewAug", "many", "", {"albedo"}),
        ("+ViewDep", "many", "back view", {"albedo"}),
        ("+Lighting", "many", "back view", {"albedo", "shaded"}),
        ("+Textureless", "many", "back view", {"albedo", "shaded", "textureless"}),
    ],
)
def test_cameras_prompts_and_lights_of_each_stage(stage, elevations, words, lit):
    for preset in (PAPER, DRAFT):
        config = stage_config(preset, stage)
        cameras = sample_cameras(config.camera, 500, torch.Generator().manual_seed(1))
        quadrants = ((cameras.azimuth + 45) % 360 // 90).unique()
        assert len(quadrants) == 4, "the base stage has cameras on all sides"
        spread = float(cameras.elevation.max() - cameras.elevation.min())
        # One elevation: 30 degrees as the inverse sine of a float32 sine, some roundings of 57 x 6e-8 = 3e-6 degrees.
        # Many: 500 draws of a range of 100 degrees, of which all but a share of e^-100 span more than 60.
        assert (spread < 1e-4 and abs(float(cameras.elevation[0]) - 30) < 1e-4) if elevations == "one" else spread > 60
        distances = cameras.position.norm(dim=1)
        # Norms in float32 near 1.25, some roundings of 1.2e-7; the range of distances is 0.5 wide otherwise.
        assert (float(distances.max() - distances.min()) < 1e-5) == (elevations == "one")
        assert view_words(180.0, 0.0, config.guidance) == words
        assert shading_kinds(config) == lit


def test_fixed_settings_have_reasons():
    assert all(len(fixed.reason) > 5 and fixed.until in STAGE_NAMES[1:] for fixed in FIXED_SETTINGS)
    assert {fixed.until for fixed in FIXED_SETTINGS} == set(STAGE_NAMES[1:])


def test_presets_without_a_stage_are_refused():
    with pytest.raises(ConfigError, match="unknown stage 'top'; allowed are base, "):
        stage_config(PAPER, "top")
    with pytest.raises(
        ConfigError, match=r"\+Lighting would change nothing; its settings are shading.shaded_probability"
    ):
        stage_config(apply_settings(PAPER, ["shading.shaded_probability=0"]), "base")
    with pytest.raises(ConfigError, match="40 to 80; allowed for the ablation are ranges that include 30 degrees"):
        stage_config(apply_settings(DRAFT, ["camera.elevation_min=40"]), "base")
