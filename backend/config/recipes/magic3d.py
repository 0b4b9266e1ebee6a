# SPDX-License-Identifier: GPL-3.0-or-later
"""Magic3D (Lin et al. 2023) as threestudio has it: a field at 64 pixels, then its mesh at 512 by a latent model."""

from __future__ import annotations

from .recipe import Source, Sourced, changed
from .threestudio import DREAMFUSION_LEFT_OUT, dreamfusion_numbers, rows, threestudio
from .units import focal_of_fov

COARSE_IF, COARSE_SD, REFINE = (threestudio(f"magic3d-{name}") for name in ("coarse-if", "coarse-sd", "refine-sd"))
TEXTURES = {512: 1024, 256: 512, 64: 256}  # texels a side by pixels a side of a view
PROGRESSIVE = ("field.hash_start_level", "field.hash_start_share", "field.hash_level_interval")
SURFACE_LEFT_OUT = (
    "The second stage deforms a tetrahedral grid; here vertices move, with the starter's rates and penalties.",
    "Its colors are those of the field's hash grid; here they are a texture's, on top of colors of vertices.",
    "Its normal consistency is of vertices' normals; here it is of faces' normals.",
    "Its lights are within 60 degrees of the camera (light_sample_strategy: magic3d); ours are normal around it.",
    "Its background is the first stage's network; here it is gray, or a random color where the field has those.",
)
FINE_LEFT_OUT = (*DREAMFUSION_LEFT_OUT, *SURFACE_LEFT_OUT)


def soft_shading(source: Source) -> tuple[Sourced, ...]:
    """Ambient light uniform in [0, 1], and the rest of it diffuse."""
    row = rows(source)
    return (
        row("shading.ambient", 0.0, "soft_shading: true"),
        row("shading.ambient_max", 1.0, "soft_shading: true"),
    )


def coarse_numbers(source: Source, omega: float, elevation_max: float) -> tuple[Sourced, ...]:
    """The first stage: threestudio's DreamFusion with all levels of the grid from the start, w = 1, soft shading."""
    shared = dreamfusion_numbers(source, omega, elevation_max)
    kept = tuple(number for number in shared if number.setting not in PROGRESSIVE)
    uniform = rows(source)("guidance.weighting", "uniform", "weighting_strategy: uniform")
    return changed(kept, uniform, *soft_shading(source))


def surface_numbers(omega: Sourced, resolution: int = 512) -> tuple[Sourced, ...]:
    """The second stage, at `resolution` pixels a side; `omega`: its row, since each family has its own."""
    row, colors = rows(REFINE), "lr: 0.01, of the network behind the colors"
    shown = "width: 512" if resolution == 512 else f"width: 512; {resolution} is the model's size"
    supersampling = (row("surface.supersampling", 1, "nvdiff-rasterizer: one sample a pixel, outlines antialiased"),)
    return (
        row("surface.steps", 5000, "max_steps: 5000"),
        row("surface.resolution", resolution, shown),
        *(supersampling if resolution == 512 else ()),
        row("surface.focal_min", focal_of_fov(45), "fovy_range: [30, 45]"),
        row("surface.focal_max", focal_of_fov(30), "fovy_range: [30, 45]"),
        omega,
        row("surface.weighting", "sigma2", "weighting_strategy: sds"),
        row("surface.t_max", 0.5, "max_step_percent: 0.5"),
        row("surface.t_max_end", 0.5, "max_step_percent: 0.5"),
        row("surface.normals", 0.0, "lambda_normal_consistency, of 1 - cos, is all that there is"),
        row("surface.consistency", 10000.0, "lambda_normal_consistency: 10000."),
        row("surface.color_rate", 0.01, colors),
        row("surface.texture_rate", 0.01, colors),
        row("mesh.resolution", 128, "isosurface_resolution: 128"),
        row("mesh.texture", TEXTURES[resolution], f"{shown}; charts of all sides in texels of about a pixel"),
        *soft_shading(REFINE),
    )
