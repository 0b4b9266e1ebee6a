# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers that the configurations of threestudio and of projects built on it share, in our settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dreamwright.shared.numbers import number_text

from .recipe import Source, Sourced
from .units import focal_of_fov, per_pixel, samples

COMMIT = "https://github.com/threestudio-project/threestudio/blob/28d9d80d9d00f308244adfcf3be8b17ca0cb6465/"
Row = Callable[[str, Any, str], Sourced]

LEFT_OUT = (
    "The field fills a cube of half side `radius`; ours is the sphere in it.",
    "Fields of view are uniform in degrees; our focal lengths are uniform.",
    "The occupancy grid drops cells below 0.01 or its mean; ours those below render.occupancy_threshold.",
    "The background is a network on spherical harmonics of degree 3; ours is one on sines and cosines.",
)
DREAMFUSION_LEFT_OUT = (
    *LEFT_OUT,
    "The mean of the orientation loss is over rays with any opacity; ours is over all rays.",
)


def threestudio(name: str) -> Source:
    """A configuration of threestudio."""
    return Source(f"threestudio {name}", f"{COMMIT}configs/{name}.yaml")


def rows(source: Source) -> Row:
    """Makes rows (setting, value, what is published) of one source."""
    return lambda setting, value, published: Sourced(setting, value, published, source)


def field_numbers(row: Row, radius: float, scale: float = 1.0) -> tuple[Sourced, ...]:
    """Hash grid, Magic3D's blob and marching; `radius` as published, `scale` our units in one of theirs.

    Densities are per length, so the same opacities need densities of 1 / scale.
    """
    density = (
        ()
        if scale == 1
        else (row("field.density_scale", 1 / scale, f"lengths are {number_text(scale)} of the published"),)
    )
    return (
        row("field.kind", "hash-grid", "otype: HashGrid"),
        row("field.hash_levels", 16, "n_levels: 16"),
        row("field.hash_features", 2, "n_features_per_level: 2"),
        row("field.hash_log2_size", 19, "log2_hashmap_size: 19"),
        row("field.hash_base_resolution", 16, "base_resolution: 16"),
        row("field.hash_growth", 1.447269237440378, "per_level_scale: 1.447269237440378"),
        row("field.hash_hidden_width", 64, "n_neurons: 64, the default of implicit-volume"),
        row("field.hash_hidden_layers", 1, "n_hidden_layers: 1, the default of implicit-volume"),
        row("field.bounding_radius", scale * radius, f"radius: {number_text(radius)}"),
        row("field.density_activation", "softplus", "density_activation: softplus"),
        row("field.density_bias", "linear", "density_bias: blob_magic3d"),
        row("field.density_bias_scale", 10.0, "density_blob_scale: 10."),
        row("field.density_bias_width", scale * 0.5, "density_blob_std: 0.5"),
        *density,
        row("background.hidden_width", 16, "n_neurons: 16, the default of neural-environment-map-background"),
        row("render.samples", samples(512), "num_samples_per_ray: 512, whose step is 1.732 times ours"),
        row("render.occupancy_resolution", 32, "resolution=32 of nerf_volume_renderer.py's occupancy grid"),
        row("render.occupancy_interval", 16, "every 16 steps, nerfacc's default"),
    )


def adam_numbers(row: Row, optimizer: str) -> tuple[Sourced, ...]:
    """Adam at a constant rate, and a tenth of it for the background. `optimizer`: its published name."""
    return (
        row("optimizer.kind", "adam", f"name: {optimizer}"),
        row("optimizer.learning_rate", 0.01, "lr: 0.01"),
        row("optimizer.final_rate", 0.01, "lr: 0.01, without a schedule"),
        row("optimizer.warmup_share", 0.0, "lr: 0.01, without a schedule"),
        row("optimizer.background_rate_multiplier", 0.1, "background lr: 0.001"),
        row("optimizer.beta1", 0.9, "betas: [0.9, 0.99]"),
        row("optimizer.beta2", 0.99, "betas: [0.9, 0.99]"),
        row("optimizer.epsilon", 1e-15, "eps: 1.e-15"),
    )


def adamw_numbers(row: Row) -> tuple[Sourced, ...]:
    """AdamW, with a tenth of the encoding's rate for the networks of density and color."""
    return (
        *adam_numbers(row, "AdamW"),
        row("optimizer.weight_decay", 0.01, "weight_decay of torch's AdamW, 0.01 by default"),
        row("optimizer.network_rate_multiplier", 0.1, "geometry.density_network lr: 0.001"),
        row("optimizer.color_rate_multiplier", 0.1, "geometry.feature_network lr: 0.001"),
    )


def cameras(row: Row, elevation_max: float, distances: tuple[float, float]) -> tuple[Sourced, ...]:
    """Elevations from -10 degrees to `elevation_max`, and distances."""
    elevations = f"elevation_range: [-10, {number_text(elevation_max)}]"
    shown = f"camera_distance_range: [{distances[0]:.1f}, {distances[1]:.1f}]"
    return (
        row("camera.elevation_min", -10.0, elevations),
        row("camera.elevation_max", elevation_max, elevations),
        row("camera.area_elevation_min", -10.0, f"{elevations}, also of draws that are uniform in area"),
        row("camera.distance_min", distances[0], shown),
        row("camera.distance_max", distances[1], shown),
        row("camera.focal_min", focal_of_fov(70), "fovy_range: [40, 70]"),
        row("camera.focal_max", focal_of_fov(40), "fovy_range: [40, 70]"),
        row("camera.stratified_azimuth", True, "batch_uniform_azimuth: true, the default of the camera data"),
    )


def perturbed(row: Row) -> tuple[Sourced, ...]:
    """Cameras perturbed as by default."""
    return (
        row("camera.look_at_std", 0.2, "center_perturb: 0.2, the default of the camera data"),
        row("camera.up_std", 0.02, "up_perturb: 0.02, the default of the camera data"),
        row("camera.position_offset", 0.1, "camera_perturb: 0.1, the default of the camera data"),
    )


def steady(row: Row) -> tuple[Sourced, ...]:
    """Cameras that are not perturbed."""
    return (
        row("camera.look_at_std", 0.0, "center_perturb: 0."),
        row("camera.up_std", 0.0, "up_perturb: 0."),
        row("camera.position_offset", 0.0, "camera_perturb: 0."),
    )


def unlit(row: Row) -> tuple[Sourced, ...]:
    """Colors without light, before a random color half of the time."""
    return (
        row("shading.albedo_only_share", 1.0, "material_type: no-material"),
        row("regularizers.orientation_start", 0.0, "lambda_orient: 0."),
        row("regularizers.orientation_end", 0.0, "lambda_orient: 0."),
        *random_background(row),
    )


def random_background(row: Row) -> tuple[Sourced, ...]:
    """A random color half of the time."""
    return (
        row("background.random_probability", 0.5, "random_aug: true, with random_aug_prob: 0.5 by default"),
        row("background.random_kind", "color", "random_aug: true"),
    )


def dreamfusion_numbers(
    source: Source, omega: float, elevation_max: float, resolution: int = 64
) -> tuple[Sourced, ...]:
    """What dreamfusion-if.yaml, dreamfusion-sd.yaml and dreamfusion-sdxl.yaml have in common, with 10,000 steps."""
    row = rows(source)
    orientation, sparsity = "lambda_orient: [0, 10., 1000., 5000], a mean over rays", "lambda_sparsity: 1., a mean"
    return (
        row("run.steps", 10000, "max_steps: 10000"),
        row("run.views_per_step", 1, "batch_size: 1"),
        row("render.resolution", resolution, f"width: {resolution}"),
        *cameras(row, elevation_max, (1.5, 2.0)),
        *perturbed(row),
        *field_numbers(row, 2.0),
        row("field.hash_start_level", 8, "start_level: 8"),
        row("field.hash_start_share", 2000 / 10000, "start_step: 2000"),
        row("field.hash_level_interval", 500 / 10000, "update_steps: 500"),
        row("field.normals", "analytic", "normal_type: analytic"),
        row("shading.albedo_only_share", 2001 / 10000, "ambient_only_steps: 2001"),
        row("guidance.omega", omega, f"guidance_scale: {number_text(omega)}., of (text - uncond) on top of text"),
        row("guidance.weighting", "sigma2", "weighting_strategy: sds"),
        row("guidance.t_min", 0.02, "min_step_percent: 0.02"),
        row("guidance.t_max", 0.98, "max_step_percent: 0.98"),
        row("regularizers.orientation_start", per_pixel(10, resolution), orientation),
        row("regularizers.orientation_end", per_pixel(1000, resolution), orientation),
        row("regularizers.orientation_share", 5000 / 10000, orientation),
        row("regularizers.opacity_start", per_pixel(1, resolution), sparsity),
        row("regularizers.opacity_end", per_pixel(1, resolution), sparsity),
        *adam_numbers(row, "Adam"),
    )


def half_as_long(source: Source) -> tuple[Sourced, ...]:
    """What threestudio's demo changes of its DreamFusion for 5,000 steps."""
    row = rows(source)
    return (
        row("run.steps", 5000, "max_steps: 5000"),
        row("field.hash_start_level", 10, "start_level: 10"),
        row("field.hash_start_share", 2000 / 5000, "start_step: 2000"),
        row("field.hash_level_interval", 400 / 5000, "update_steps: 400"),
        row("shading.albedo_only_share", 2001 / 5000, "ambient_only_steps: 2001"),
        row("regularizers.orientation_share", 5000 / 5000, "lambda_orient: [0, 10., 1000., 5000]"),
    )
