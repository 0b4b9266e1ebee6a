# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings that a mesh is optimized with, derived from those of the run."""

from __future__ import annotations

from dataclasses import replace

from ..config.schedules import lowest_end
from ..config.schema import Config, GuidanceConfig, RefineConfig


def guidance_for(config: GuidanceConfig, strength: float) -> GuidanceConfig:
    """The guidance's times at this strength in [0, 1]: t_max falls to half its way from t_min as strength falls to 0.

    Little noise asks for small changes only.
    """
    share = 0.5 + 0.5 * strength
    ranges = (config.t_min, config.t_max), (lowest_end(config), config.t_max_end)
    high, end = (low + (t - low) * share for low, t in ranges)
    return replace(config, t_max=high, t_max_end=end)


def surface_guidance(config: Config) -> GuidanceConfig:
    """The guidance of a field's surface stage: its own weights, and its times over the whole of the stage.

    No time is below the lowest at the end of the field's steps, nor below surface.t_min.
    """
    surface = config.surface
    low = max(lowest_end(config.guidance), surface.t_min)
    return replace(
        config.guidance,
        t_min=low,
        t_min_end=0.0,
        t_max=max(low, surface.t_max),
        t_max_end=max(low, surface.t_max_end),
        t_anneal_begin=0.0,
        t_anneal_share=1.0,
        omega=surface.omega or config.guidance.omega,
        weighting=config.guidance.weighting if surface.weighting == "same" else surface.weighting,
    )


def surface_config(config: Config) -> Config:
    """The settings of a field's surface stage, as those of the refinement of a mesh."""
    surface = config.surface
    refine = RefineConfig(
        strength=1.0,
        colors=surface.color_rate > 0,
        reach=surface.reach,
        stiffness=surface.stiffness,
        position_rate=surface.position_rate,
        color_rate=surface.color_rate,
        laplacian=surface.laplacian,
        edges=surface.edges,
        normals=surface.consistency,
        supersampling=surface.supersampling,
    )
    camera = replace(
        config.camera,
        focal_min=surface.focal_min or config.camera.focal_min,
        focal_max=surface.focal_max or config.camera.focal_max,
    )
    # Only views with light: albedo alone shows no shape.
    shading = replace(config.shading, albedo_only_share=0.0)
    return replace(
        config,
        run=replace(config.run, steps=surface.steps),
        camera=camera,
        render=replace(config.render, resolution=surface.resolution or config.render.resolution),
        shading=shading,
        guidance=surface_guidance(config),
        refine=refine,
    )
