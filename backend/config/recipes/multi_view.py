# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes of multi-view models: MVDream's (Shi et al. 2023), whose lengths are halved to our prop of radius 0.5."""

from __future__ import annotations

import math

from .magic3d import SURFACE_LEFT_OUT, surface_numbers
from .recipe import Source, Sourced, changed, published_recipe
from .refinement import refinement
from .threestudio import LEFT_OUT, adamw_numbers, field_numbers, rows, steady, unlit
from .units import per_pixel

COMMIT = "https://github.com/bytedance/MVDream-threestudio/blob/efcd6c32f3f98c156f64ba5537d8817c4a355aae/configs/"
PLAIN = Source("MVDream-threestudio mvdream-sd21", f"{COMMIT}mvdream-sd21.yaml")
SHADED = Source("MVDream-threestudio mvdream-sd21-shading", f"{COMMIT}mvdream-sd21-shading.yaml")
STEPS, FIRST = 10000, 5000
SCALE = 0.5  # MVDream's props fill a sphere of radius 1
NEGATIVE = (
    "ugly, bad anatomy, blurry, pixelated obscure, unnatural colors, poor lighting, dull, and unclear, cropped, "
    "lowres, low quality, artifacts, duplicate, morbid, mutilated, poorly drawn face, deformed, dehydrated, bad "
    "proportions"
)


def camera_numbers(source: Source) -> tuple[Sourced, ...]:
    """Four views a set. A distance is u / tan(fov / 2), so a sphere of radius 1 fills 1 / u of the view's width."""
    row = rows(source)
    fov, u = "fovy_range: [15, 60]", "camera_distance_range: [0.8, 1.0], relative to 1 / tan(fov / 2)"
    return (
        row("camera.views_per_set", 4, "n_view: 4"),
        row("camera.elevation_min", 0.0, "elevation_range: [0, 30]"),
        row("camera.elevation_max", 30.0, "elevation_range: [0, 30]"),
        row("camera.framing", "fill", u),
        row("camera.fill_min", 1 / 1.0, u),
        row("camera.fill_max", 1 / 0.8, u),
        row("camera.distance_min", SCALE * 0.8 / math.tan(math.radians(60) / 2), f"{u}, {fov}"),
        row("camera.distance_max", SCALE * 1.0 / math.tan(math.radians(15) / 2), f"{u}, {fov}"),
        *steady(row),
    )


def guidance_numbers(source: Source) -> tuple[Sourced, ...]:
    """The guidance alone, without the annealing of times."""
    row = rows(source)
    return (
        row("guidance.omega", 49.0, "guidance_scale: 50.0, of (text - uncond) on top of uncond"),
        row("guidance.weighting", "clean", "recon_loss: true, half of the squared distance to x0"),
        row("guidance.rescale", 0.5, "recon_std_rescale: 0.5"),
        row("guidance.view_dependent", False, "view_dependent_prompting: false, the default of the guidance"),
        row("guidance.negative_prompt", NEGATIVE, "negative_prompt: ugly, bad anatomy, ..."),
    )


def numbers(source: Source) -> tuple[Sourced, ...]:
    """What mvdream-sd21.yaml and mvdream-sd21-shading.yaml have in common."""
    row = rows(source)
    sizes, views = "width: [64, 256], resolution_milestones: [5000]", "batch_size: [8, 4]"
    low, high = "min_step_percent: [0, 0.98, 0.02, 8000]", "max_step_percent: [0, 0.98, 0.50, 8000]"
    return (
        row("run.steps", STEPS, "max_steps: 10000"),
        row("run.views_per_step", 4, views),
        row("render.coarse_views", 8, views),
        row("render.resolution", 256, sizes),
        row("render.coarse_resolution", 64, sizes),
        row("render.coarse_share", FIRST / STEPS, sizes),
        *camera_numbers(source),
        *field_numbers(row, 1.0, SCALE),
        *unlit(row),
        *guidance_numbers(source),
        row("guidance.t_min", 0.98, low),
        row("guidance.t_min_end", 0.02, low),
        row("guidance.t_max", 0.98, high),
        row("guidance.t_max_end", 0.5, high),
        row("guidance.t_anneal_share", 8000 / STEPS, high),
        row("regularizers.opacity_start", 0.0, "lambda_sparsity: 0."),
        row("regularizers.opacity_end", 0.0, "lambda_sparsity: 0."),
        *adamw_numbers(row),
    )


def first_numbers() -> tuple[Sourced, ...]:
    """The part before the resolution grows, with the annealing of the whole."""
    row, before = rows(PLAIN), "before resolution_milestones: [5000]"
    return (
        row("run.steps", FIRST, f"the steps {before}"),
        row("run.views_per_step", 8, f"batch_size: 8 {before}"),
        row("render.coarse_views", 0, f"batch_size: 8 {before}"),
        row("render.resolution", 64, f"width: 64 {before}"),
        row("render.coarse_resolution", 0, f"width: 64 {before}"),
    )


def light_numbers() -> tuple[Sourced, ...]:
    """Point lights, whose lengths are halved as well."""
    row, light = rows(SHADED), "light_distance_range: (0.8, 1.5), the default of the camera data"
    return (
        row("light.distance_min", SCALE * 0.8, light),
        row("light.distance_max", SCALE * 1.5, light),
        row("light.direction_std", SCALE * 1.0, "light_position_perturb: 1.0, the default of the camera data"),
    )


def fine_numbers() -> tuple[Sourced, ...]:
    """MVDream without shading, then a mesh in sets of four views with MVDream's guidance in place of Magic3D's."""
    row = rows(PLAIN)
    omega = row("surface.omega", 49.0, "guidance_scale: 50.0, of (text - uncond) on top of uncond")
    stage = changed(
        surface_numbers(omega, 256),
        row("surface.weighting", "clean", "recon_loss: true, half of the squared distance to x0"),
    )
    # The focal length follows the distance, as in the field's views.
    framed = tuple(number for number in stage if not number.setting.startswith("surface.focal"))
    return changed(numbers(PLAIN), *light_numbers(), *framed)


def shading_numbers() -> tuple[Sourced, ...]:
    """What the shading variant has instead of colors without light."""
    row = rows(SHADED)
    orientation, soft = "lambda_orient: [0, 10., 1000., 5000], a mean over rays", "soft_shading: true"
    return (
        row("field.normals", "analytic", "normal_type: analytic"),
        row("shading.albedo_only_share", FIRST / STEPS, "ambient_only_steps: 5000"),
        row("shading.shaded_probability", 0.75, "diffuse_prob: 0.75, the default of the material"),
        row("shading.textureless_probability", 0.5, "textureless_prob: 0.5"),
        row("shading.ambient", 0.0, soft),
        row("shading.ambient_max", 1.0, soft),
        *light_numbers(),
        row("regularizers.orientation_start", per_pixel(10, 64), orientation),
        row("regularizers.orientation_end", per_pixel(1000, 256), orientation),
        row("regularizers.orientation_share", FIRST / STEPS, orientation),
    )


NUMBERS = numbers(PLAIN)
NOT_CARRIED = (
    *LEFT_OUT,
    "Distances follow the field of view; ours are uniform between the same bounds.",
    "Draws of elevations that are uniform in area end at 19.5 degrees, by a slip; ours at 30.",
)
RECIPES = (
    published_recipe(
        "multi-view", "draft", "standard's first 5,000 steps", changed(NUMBERS, *first_numbers()), NOT_CARRIED
    ),
    published_recipe(
        "multi-view", "standard", "MVDream without shading: 10,000 steps up to 256 pixels", NUMBERS, NOT_CARRIED
    ),
    published_recipe(
        "multi-view",
        "fine",
        "MVDream without shading, then a mesh with a texture at 256 pixels as in Magic3D, 15,000 steps",
        fine_numbers(),
        (*NOT_CARRIED, *SURFACE_LEFT_OUT),
    ),
    published_recipe(
        "multi-view",
        "paper",
        "MVDream as in its paper: soft shading, 10,000 steps up to 256 pixels",
        changed(numbers(SHADED), *shading_numbers()),
        (*NOT_CARRIED, "The orientation's weight grows to that of 64 pixels; ours to that of the 256 that follow."),
    ),
    refinement("multi-view", *camera_numbers(PLAIN), *guidance_numbers(PLAIN), resolution=256),
)
