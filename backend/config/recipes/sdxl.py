# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes of SDXL: threestudio's, of a branch of July 2023 for SDXL base 0.9."""

from __future__ import annotations

from .latent import SD_DEMO
from .magic3d import FINE_LEFT_OUT, REFINE, surface_numbers
from .recipe import Source, changed, published_recipe
from .refinement import MAGIC3D, refinement
from .threestudio import DREAMFUSION_LEFT_OUT, dreamfusion_numbers, half_as_long, rows

XL = Source(
    "threestudio dreamfusion-sdxl",
    "https://github.com/threestudio-project/threestudio/blob/207ba2051d23cfadfb2e48340e98abfd564197dd/"
    "configs/dreamfusion-sdxl.yaml",
)
OMEGA = 100.0
NUMBERS = dreamfusion_numbers(XL, OMEGA, 45.0, resolution=128)

RECIPES = (
    published_recipe(
        "sdxl", "draft", "half of standard's steps", changed(NUMBERS, *half_as_long(SD_DEMO)), DREAMFUSION_LEFT_OUT
    ),
    published_recipe(
        "sdxl",
        "standard",
        "threestudio's DreamFusion: a hash grid, 10,000 steps of one view of 128 pixels",
        NUMBERS,
        DREAMFUSION_LEFT_OUT,
    ),
    published_recipe(
        "sdxl",
        "fine",
        "standard's field, then its mesh with a texture at 512 pixels as in Magic3D, 15,000 steps",
        changed(
            NUMBERS,
            *surface_numbers(rows(REFINE)("surface.omega", OMEGA, "guidance_scale: 100., of Stable Diffusion 2.1")),
        ),
        FINE_LEFT_OUT,
    ),
    refinement("sdxl", rows(MAGIC3D)("guidance.omega", OMEGA, "guidance_scale: 100., of Stable Diffusion 2.1")),
)
