# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-in server says that it offers: two models, presets, and a setting of every kind."""

from __future__ import annotations

from dreamwright.shared import limits
from dreamwright.shared.capabilities import ModelCard, PresetCard, SettingBound, SettingCard
from dreamwright.shared.messages import Capabilities

OFFER = Capabilities(
    models=(
        ModelCard(
            "starter", "The built-in one", True, "", ("a red mushroom",), ("a", "red", "blue", "mushroom", "chair")
        ),
        ModelCard("giant", "Knows all words", False, "Run: dreamwright models get giant", (), ()),
    ),
    presets=(PresetCard("standard", "For use", 400), PresetCard("quick", "For a look", 40)),
    settings=(
        SettingCard(
            "run.steps", "Steps", "More is finer", "whole", 1, 10_000, (), {"quick": 40, "standard": 400, "refine": 250}
        ),
        SettingCard("guidance.omega", "Omega", "How strict", "number", 0, 1000, (), {"quick": 20.0, "standard": 30.0}),
        SettingCard(
            "guidance.view_dependent", "Views", "View words", "switch", 0, 1, (), {"quick": True, "standard": True}
        ),
        SettingCard(
            "field.kind", "Field", "Its kind", "choice", 0, 0, ("voxels", "mlp"), {"quick": "voxels", "standard": "mlp"}
        ),
        SettingCard(
            "run.finetune_share",
            "Keep when Refining",
            "How much is kept",
            "number",
            0,
            0.99,
            (),
            {"quick": 0.5, "standard": 0.5},
        ),
        SettingCard("mesh.height_m", "Height", "In metres", "number", 0.001, 1e4, (), {"quick": 1.0}),
        SettingCard("refine.strength", "Strength", "How far", "number", 0, 1, (), {"refine": 0.5}),
        SettingCard("mesh.triangles", "Triangles", "At most", "whole", 16, 5e6, (), {"quick": 20000}),
    ),
    devices=("cpu",),
    bounds={"prompt_characters": limits.PROMPT_CHARACTERS},
    setting_bounds=(SettingBound("mesh.texture", 0, limits.TEXTURE_LARGEST),),
)
