# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes of flow models such as Stable Diffusion 3: RFDS (Yang et al. 2024), rectified flow distillation sampling."""

from __future__ import annotations

from .magic3d import SURFACE_LEFT_OUT, surface_numbers
from .recipe import Source, Sourced, changed, published_recipe
from .refinement import refinement
from .threestudio import (
    LEFT_OUT,
    adamw_numbers,
    cameras,
    field_numbers,
    rows,
    steady,
    unlit,
)

RFDS = Source(
    "rectified_flow_prior rfds_sd3",
    "https://github.com/yangxiaofeng/rectified_flow_prior/blob/235e39fba37ca3163e4818e98da6015ff7b3a500/"
    "configs/rfds_sd3.yaml",
)
STEPS, FIRST = 15000, 5000
# The published loss is a mean over 16 channels of latents of an eighth of the view's size, with a weight of 0.5 in the
# mean; ours is a sum. Penalties that are means over pixels therefore count 16 / 64 as much per pixel.
LATENTS_PER_PIXEL = 16 / 8**2


def guidance_numbers() -> tuple[Sourced, ...]:
    """The guidance alone."""
    row = rows(RFDS)
    times = "step_percent 0.3 to 0.98 of RFDS_sd3.py, which counts the scheduler's timesteps from the noisy end"
    return (
        row("guidance.omega", 99.0, "guidance_scale: 100, of (text - uncond) on top of uncond"),
        row("guidance.t_min", 0.02, times),
        row("guidance.t_max", 0.7, times),
        row("guidance.t_max_end", 0.7, times),
        row("guidance.weighting", "clean", "mse(noise - latents, velocity)"),
        row("guidance.side_azimuth", 30.0, "front_threshold: 30., back_threshold: 30."),
        row(
            "guidance.negative_prompt",
            "unrealistic, blurry, low quality, oversaturation.",
            "negative_prompt: unrealistic, blurry, low quality, oversaturation.",
        ),
        row("model.image_size", 512, "width: [256, 512], encoded as it is"),
    )


def numbers() -> tuple[Sourced, ...]:
    """Of rfds_sd3.yaml."""
    row = rows(RFDS)
    sizes = "width: [256, 512], resolution_milestones: [5000]"
    sparsity, opaque = "lambda_sparsity: 0.1, a mean over pixels", "lambda_opaque: 0.1, a mean over pixels"
    return (
        row("run.steps", STEPS, "max_steps: 15000"),
        row("run.views_per_step", 1, "batch_size: [1, 1]"),
        row("render.resolution", 512, sizes),
        row("render.coarse_resolution", 256, sizes),
        row("render.coarse_share", FIRST / STEPS, sizes),
        *cameras(row, 45.0, (1.0, 1.5)),
        *steady(row),
        *field_numbers(row, 1.0),
        *unlit(row),
        *guidance_numbers(),
        row("regularizers.opacity_start", 0.1 * LATENTS_PER_PIXEL, sparsity),
        row("regularizers.opacity_end", 0.1 * LATENTS_PER_PIXEL, sparsity),
        row("regularizers.entropy_start", 0.1 * LATENTS_PER_PIXEL, opaque),
        row("regularizers.entropy_end", 0.1 * LATENTS_PER_PIXEL, opaque),
        *adamw_numbers(row),
    )


def first_numbers() -> tuple[Sourced, ...]:
    """The part before the resolution grows."""
    row, before = rows(RFDS), "before resolution_milestones: [5000]"
    return (
        row("run.steps", FIRST, f"the steps {before}"),
        row("render.resolution", 256, f"width: 256 {before}"),
        row("render.coarse_resolution", 0, f"width: 256 {before}"),
        row("model.image_size", 256, f"width: 256 {before}, encoded as it is"),
    )


def fine_numbers() -> tuple[Sourced, ...]:
    """The part before the resolution grows, then a mesh with RFDS's guidance in place of Magic3D's."""
    row, times = rows(RFDS), "step_percent 0.3 of RFDS_sd3.py"
    first = tuple(number for number in first_numbers() if number.setting != "model.image_size")
    return changed(
        changed(NUMBERS, *first),
        *changed(
            surface_numbers(row("surface.omega", 99.0, "guidance_scale: 100, of (text - uncond) on top of uncond")),
            row("surface.weighting", "clean", "mse(noise - latents, velocity)"),
            row("surface.t_max", 0.7, times),
            row("surface.t_max_end", 0.7, times),
        ),
    )


NUMBERS = numbers()
NOT_CARRIED = (
    *LEFT_OUT,
    "A step's loss is weighted by the sigmoid of a random number; ours by t, which is what `clean` amounts to.",
    "The early views are encoded at 256 pixels; ours at model.image_size.",
)
RECIPES = (
    published_recipe("flow", "draft", "standard's first 5,000 steps", changed(NUMBERS, *first_numbers()), NOT_CARRIED),
    published_recipe("flow", "standard", "RFDS: a hash grid, 15,000 steps up to 512 pixels", NUMBERS, NOT_CARRIED),
    published_recipe(
        "flow",
        "fine",
        "RFDS's first 5,000 steps, then a mesh with a texture at 512 pixels as in Magic3D",
        fine_numbers(),
        (*NOT_CARRIED, *SURFACE_LEFT_OUT),
    ),
    refinement("flow", *guidance_numbers()),
)
