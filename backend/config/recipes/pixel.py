# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes of pixel models such as DeepFloyd IF: threestudio's, and the paper's own numbers."""

from __future__ import annotations

from ..schema import Config
from .recipe import Recipe, changed, published_recipe
from .refinement import refinement
from .threestudio import DREAMFUSION_LEFT_OUT, dreamfusion_numbers, half_as_long, rows, threestudio

PAPER = Config()  # the defaults of the schema are the paper's numbers
IF, IF_DEMO = threestudio("dreamfusion-if"), threestudio("gradio/dreamfusion-if")
OMEGA = 20.0
NUMBERS = dreamfusion_numbers(IF, OMEGA, 90.0)
LEFT_OUT = (*DREAMFUSION_LEFT_OUT, "Colors go from -0.1 to 1.1 (scale_-11_01); ours from 0 to 1.")

RECIPES = (
    published_recipe("pixel", "draft", "half of standard's steps", changed(NUMBERS, *half_as_long(IF_DEMO)), LEFT_OUT),
    published_recipe(
        "pixel", "standard", "threestudio's DreamFusion: a hash grid, 10,000 steps of one view", NUMBERS, LEFT_OUT
    ),
    Recipe(
        "pixel",
        "paper",
        "DreamFusion as published: mip-NeRF field, Shampoo, 15,000 steps of 4 views",
        PAPER,
        "DreamFusion (Poole et al. 2022)",
    ),
    refinement("pixel", rows(IF)("guidance.omega", OMEGA, "guidance_scale: 20."), resolution=64),
)
