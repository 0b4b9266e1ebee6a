# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes of latent models such as Stable Diffusion 1.5 and 2.1: threestudio's DreamFusion and ProlificDreamer."""

from __future__ import annotations

from .magic3d import COARSE_SD, FINE_LEFT_OUT, REFINE, coarse_numbers, surface_numbers
from .recipe import Sourced, changed, published_recipe
from .refinement import MAGIC3D, refinement
from .threestudio import (
    DREAMFUSION_LEFT_OUT,
    LEFT_OUT,
    adamw_numbers,
    cameras,
    dreamfusion_numbers,
    field_numbers,
    half_as_long,
    rows,
    steady,
    threestudio,
    unlit,
)
from .units import per_pixel

SD, SD_DEMO, PROLIFIC = (threestudio(n) for n in ("dreamfusion-sd", "gradio/dreamfusion-sd", "prolificdreamer"))
OMEGA = 100.0
NUMBERS = dreamfusion_numbers(SD, OMEGA, 45.0)
SURFACE_OMEGA = rows(REFINE)("surface.omega", OMEGA, "guidance_scale: 100., of (text - uncond) on top of text")


def prolific_numbers() -> tuple[Sourced, ...]:
    """ProlificDreamer's first stage: variational score distillation, 25,000 steps, 512 pixels after 5,000."""
    row, steps = rows(PROLIFIC), 25000
    sizes, sparsity = "width: [64, 512], resolution_milestones: [5000]", "lambda_sparsity: 10., a mean over pixels"
    opaque = "lambda_opaque: [10000, 0.0, 1000.0, 10001], a mean over pixels"
    annealed = "max_step_percent: [5000, 0.98, 0.5, 5001]"
    return (
        row("run.steps", steps, "max_steps: 25000"),
        row("run.views_per_step", 1, "batch_size: [1, 1]"),
        row("render.resolution", 512, sizes),
        row("render.coarse_resolution", 64, sizes),
        row("render.coarse_share", 5000 / steps, sizes),
        *cameras(row, 45.0, (1.0, 1.5)),
        *steady(row),
        *field_numbers(row, 1.0),
        *unlit(row),
        row("guidance.rule", "vsd", "guidance_type: stable-diffusion-vsd-guidance"),
        row("guidance.omega", 6.5, "guidance_scale: 7.5, of (text - uncond) on top of uncond"),
        row("guidance.weighting", "sigma2", "w = 1 - alphas of stable_diffusion_vsd_guidance.py"),
        row("guidance.side_azimuth", 30.0, "front_threshold: 30., back_threshold: 30."),
        row("guidance.lora_rank", 4, "rank 4, the default of diffusers' LoRAAttnProcessor"),
        row("guidance.lora_rate", 1e-4, "guidance lr: 0.0001"),
        row("guidance.t_min", 0.02, "min_step_percent: 0.02"),
        row("guidance.t_max", 0.98, annealed),
        row("guidance.t_max_end", 0.5, annealed),
        row("guidance.t_anneal_begin", 5000 / steps, annealed),
        row("guidance.t_anneal_share", 0.0, annealed),
        row("regularizers.opacity_start", per_pixel(10, 64), sparsity),
        row("regularizers.opacity_end", per_pixel(10, 512), sparsity),
        row("regularizers.opacity_begin", 5000 / steps, sparsity),
        row("regularizers.opacity_share", 0.0, sparsity),
        row("regularizers.entropy_end", per_pixel(1000, 512), opaque),
        row("regularizers.entropy_begin", 10000 / steps, opaque),
        row("regularizers.entropy_share", 0.0, opaque),
        *adamw_numbers(row),
    )


RECIPES = (
    published_recipe(
        "latent", "draft", "half of standard's steps", changed(NUMBERS, *half_as_long(SD_DEMO)), DREAMFUSION_LEFT_OUT
    ),
    published_recipe(
        "latent",
        "standard",
        "threestudio's DreamFusion: a hash grid, 10,000 steps of one view",
        NUMBERS,
        DREAMFUSION_LEFT_OUT,
    ),
    published_recipe(
        "latent",
        "fine",
        "Magic3D: a field at 64 pixels, then its mesh with a texture at 512, 15,000 steps",
        changed(coarse_numbers(COARSE_SD, OMEGA, 45.0), *surface_numbers(SURFACE_OMEGA)),
        FINE_LEFT_OUT,
    ),
    published_recipe(
        "latent",
        "paper",
        "ProlificDreamer's first stage: variational score distillation, 25,000 steps up to 512 pixels",
        prolific_numbers(),
        (
            *LEFT_OUT,
            "The LoRA is of Stable Diffusion 2.1 (v-prediction) and sees the camera; ours is of the model itself.",
            "Stages two and three, of geometry and texture, are not run.",
        ),
    ),
    refinement("latent", rows(MAGIC3D)("guidance.omega", OMEGA, "guidance_scale: 100.")),
)
