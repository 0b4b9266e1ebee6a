# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes of pixel models such as DeepFloyd IF: threestudio's, and the paper's own numbers."""

from __future__ import annotations

from ..schema import Config
from .magic3d import COARSE_IF, FINE_LEFT_OUT, coarse_numbers, surface_numbers
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
    published_recipe(
        "pixel",
        "fine",
        "Magic3D: a field, then its mesh with a texture, by the same model or by a latent one (surface.model)",
        changed(
            coarse_numbers(COARSE_IF, OMEGA, 90.0),
            *surface_numbers(rows(COARSE_IF)("surface.omega", OMEGA, "guidance_scale: 20., of the first stage"), 64),
        ),
        (
            *FINE_LEFT_OUT,
            LEFT_OUT[-1],
            "The second stage is Stable Diffusion's at 512 pixels; here it is the same model's without surface.model.",
        ),
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
