# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes of the packaged starter, found by experiment (docs/results): `draft`, `standard`, and `REFINE` for a mesh."""

from __future__ import annotations

from dataclasses import replace

from ..schema import (
    BackgroundConfig,
    CameraConfig,
    Config,
    FieldConfig,
    GuidanceConfig,
    MeshConfig,
    OptimizerConfig,
    RegularizerConfig,
    RenderConfig,
    RunConfig,
    ShadingConfig,
    SurfaceConfig,
)
from .recipe import Recipe

DRAFT = Config(
    run=RunConfig(steps=180, views_per_step=8, checkpoint_interval=30, preview_interval=10),
    camera=CameraConfig(
        elevation_min=-5.0,
        elevation_max=80.0,  # views straight down show little of a prop
        area_elevation_min=-5.0,
        distance_min=1.7,
        distance_max=2.1,
        framing="fill",  # the prop fills a similar share of each view, as in the starter's training images
        fill_min=0.72,
        fill_max=0.92,
        look_at_std=0.015,
        up_std=0.01,
        position_offset=0.0,
        stratified_azimuth=True,
    ),
    shading=ShadingConfig(
        albedo_only_share=0.15,
        shaded_probability=0.7,
        ambient=0.2,
        ambient_max=0.55,  # a range of lighting, as in training images
    ),
    field=FieldConfig(
        kind="voxels",
        bounding_radius=0.6,  # one prop of radius 0.5 and a little air
        density_activation="softplus",
        density_bias="linear",  # Magic3D's blob: opens more easily than eq 9
        density_bias_scale=10.0,
        density_bias_width=0.5,
        density_bias_fade_share=0.5,  # a bias that stays keeps holes shut
        density_scale=5.0,
    ),
    background=BackgroundConfig(
        kind="constant",
        random_probability=1.0,  # a learned background would hide the field's errors
        random_kind="grey",  # as in the starter's training images, where it is independent of the prop
        random_min=0.3,
        random_max=0.8,
        # For gray parts, such as a lamp's pole: silhouette IoU of a black lamp 0.74 without, 0.79 with.
        random_any_share=0.5,
    ),
    render=RenderConfig(
        coarse_resolution=32,
        samples=80,
        occupancy_resolution=48,
        occupancy_interval=8,
        early_stop_transmittance=1e-3,  # what is behind or fainter changes an image by less than 1e-3
        smallest_weight=1e-4,
    ),
    guidance=GuidanceConfig(
        omega=3.0,  # the starter's samples are best here; at 20 its gradients pit the surface
        t_min=0.4,  # below, its prediction accepts any color, and dark props stay dark
        t_max_end=0.75,
        view_words="sixteen",
        textureless_words="untextured",
        # Eight views of one noise have truer colors than four of two in the same time (docs/results/ablations.md).
        noises=1,
    ),
    regularizers=RegularizerConfig(
        orientation_start=0.0,
        orientation_end=0.0,
        # Without it fog fills the sphere, which gray backgrounds do not penalize; 0.1 removes thin parts as well.
        opacity_start=0.008,
        opacity_end=0.002,
        opacity_share=0.6,
        entropy_end=0.12,  # drives what is left of the fog to clear or solid
        smoothness=2.5,  # removes pits; ten times as much removes a mushroom's stem as well
    ),
    optimizer=OptimizerConfig(
        kind="adam",
        learning_rate=0.08,
        color_rate_multiplier=0.5,
        background_rate_multiplier=0.2,
        warmup_start=1e-4,
        warmup_share=0.04,
        final_rate=0.004,
        beta1=0.9,
        beta2=0.99,
        epsilon=1e-8,
    ),
    # Fills the pits of a chair's seat; more closing or smoothing costs thin parts (docs/results/ablations.md).
    mesh=MeshConfig(resolution=96, triangles=12000, closing=0.02, smoothing=4),
    # Flattens lumps and settles colors, in a fifth of the field's time.
    surface=SurfaceConfig(steps=60, normals=30.0, color_rate=0.08, t_min=0.55, t_max_end=0.85),
)

STANDARD = replace(
    DRAFT,
    run=replace(DRAFT.run, steps=500, views_per_step=4, checkpoint_interval=40),
    guidance=replace(DRAFT.guidance, noises=4),
    mesh=replace(DRAFT.mesh, resolution=128, triangles=20000),
    surface=replace(DRAFT.surface, steps=120),
)

# The texture has the detail that the field has between vertices, which its 64-pixel views cannot add to.
FINE = replace(
    STANDARD,
    mesh=replace(STANDARD.mesh, texture=512),
    surface=replace(STANDARD.surface, steps=240, texture_rate=0.02),
)

REFINE_PRESET = "refine"  # the only one for a mesh, in every family

# Mesh refinement: draft's cameras, lights, backgrounds and guidance. Fewer steps suffice, since little changes.
REFINE = replace(
    DRAFT,
    run=replace(DRAFT.run, steps=120, views_per_step=4, checkpoint_interval=20),
    guidance=replace(DRAFT.guidance, noises=2),
    shading=replace(DRAFT.shading, albedo_only_share=0.0),
    surface=SurfaceConfig(),
)

FOUND = "found by experiment with it"
RECIPES = (
    Recipe("starter", "draft", "a prop in minutes on a CPU: voxels, eight views a step", DRAFT, FOUND),
    Recipe(
        "starter",
        "standard",
        "500 steps of four views of four noises each, and a finer mesh",
        STANDARD,
        FOUND,
    ),
    Recipe(
        "starter", "fine", "standard, then twice the steps of its mesh with a texture of 512 texels", FINE, "standard's"
    ),
    Recipe(
        "starter",
        "paper",
        "DreamFusion as published: mip-NeRF field, Shampoo, 15,000 steps of 4 views",
        Config(),  # the defaults of the schema are the paper's numbers
        "DreamFusion (Poole et al. 2022), for a larger model",
    ),
    Recipe("starter", REFINE_PRESET, "moves and colors a mesh", REFINE, FOUND),
)
