# SPDX-License-Identifier: GPL-3.0-or-later
"""Capabilities of the fake server: two models, presets, and a setting of every kind."""

from __future__ import annotations

from dreamwright.shared import limits
from dreamwright.shared.capabilities import ModelInfo, PresetInfo, RecipeInfo, SettingInfo, SettingRange
from dreamwright.shared.messages import Capabilities

OFFER = Capabilities(
    models=(
        ModelInfo(
            "starter",
            "starter",
            "The built-in one",
            True,
            "",
            ("a red mushroom",),
            ("a", "red", "blue", "mushroom", "chair"),
            {"red": "color", "blue": "color", "mushroom": "prop", "chair": "prop"},
            {"crimson": "red", "toadstool": "mushroom"},
        ),
        ModelInfo("giant", "latent", "Knows all words", False, "Run: dreamwright models get giant", (), (), {}, {}),
    ),
    presets=(PresetInfo("standard", "For use", 400), PresetInfo("quick", "For a look", 40)),
    recipes=(
        RecipeInfo("starter", "standard", "For use", "recipe: found", 400, {"run.steps": 400, "guidance.omega": 30.0}),
        RecipeInfo("starter", "quick", "For a look", "recipe: found", 40, {"run.steps": 40, "guidance.omega": 20.0}),
        RecipeInfo(
            "latent", "standard", "Published", "recipe: a paper", 9000, {"run.steps": 9000, "guidance.omega": 100.0}
        ),
        RecipeInfo("latent", "refine", "Moves", "recipe: a paper", 5000, {"run.steps": 5000}),
    ),
    settings=(
        SettingInfo(
            "run.steps",
            "Steps",
            "More is finer",
            "integer",
            1,
            10_000,
            (),
            {"quick": 40, "standard": 400, "refine": 250},
        ),
        SettingInfo("guidance.omega", "Omega", "How strict", "number", 0, 1000, (), {"quick": 20.0, "standard": 30.0}),
        SettingInfo(
            "guidance.view_dependent", "Views", "View words", "switch", 0, 1, (), {"quick": True, "standard": True}
        ),
        SettingInfo(
            "field.kind", "Field", "Its kind", "choice", 0, 0, ("voxels", "mlp"), {"quick": "voxels", "standard": "mlp"}
        ),
        SettingInfo(
            "run.finetune_share",
            "Keep when Fine-Tuning",
            "How much is kept",
            "number",
            0,
            0.99,
            (),
            {"quick": 0.5, "standard": 0.5},
        ),
        SettingInfo("mesh.height_m", "Height", "In metres", "number", 0.001, 1e4, (), {"quick": 1.0}),
        SettingInfo("refine.strength", "Strength", "How far", "number", 0, 1, (), {"refine": 0.5}),
        SettingInfo("mesh.triangles", "Triangles", "At most", "integer", 16, 5e6, (), {"quick": 20000}),
    ),
    devices=("cpu",),
    loras=("clay", "detail"),
    bounds={"prompt_characters": limits.PROMPT_CHARACTERS},
    setting_bounds=(SettingRange("mesh.texture", 0, limits.TEXTURE_LARGEST),),
)
