# SPDX-License-Identifier: GPL-3.0-or-later
"""Refinement of a mesh with a real model: the starter's mesh, cameras and lights, Magic3D's guidance and steps."""

from __future__ import annotations

from .recipe import Family, Recipe, Sourced, changed, published_recipe
from .starter import REFINE, REFINE_PRESET
from .threestudio import rows, threestudio

MAGIC3D = threestudio("magic3d-refine-sd")


def refinement(family: Family, *own: Sourced, resolution: int = 512) -> Recipe:
    """The recipe of one family, with its `own` numbers; `resolution` in pixels a side."""
    row = rows(MAGIC3D)
    shown = "width: 512" if resolution == 512 else f"width: 512; {resolution} is the model's size"
    numbers = (
        row("run.steps", 5000, "max_steps: 5000"),
        row("render.resolution", resolution, shown),
        row("shading.ambient", 0.0, "soft_shading: true"),
        row("shading.ambient_max", 1.0, "soft_shading: true"),
        row("guidance.weighting", "sigma2", "weighting_strategy: sds"),
        row("guidance.t_min", 0.02, "min_step_percent: 0.02"),
        row("guidance.t_max", 0.5, "max_step_percent: 0.5"),
        row("guidance.t_max_end", 0.5, "max_step_percent: 0.5"),
        row("guidance.view_words", "four", "front, side, back and overhead of the prompt processor"),
        row("guidance.textureless_words", "", "the prompt as it is"),
        row("refine.color_rate", 0.01, "lr: 0.01, of the network behind the colors"),
        row("refine.normals", 10000.0, "lambda_normal_consistency: 10000., of 1 - cos"),
    )
    left_out = (
        "Magic3D deforms a tetrahedral grid; here vertices move, with the starter's rate, laplacian and edge lengths.",
    )
    return published_recipe(
        family, REFINE_PRESET, "moves and colors a mesh", changed(numbers, *own), left_out, base=REFINE
    )
