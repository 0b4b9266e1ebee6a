# SPDX-License-Identifier: GPL-3.0-or-later
"""The presets: `paper` is DreamFusion to the letter, `standard` what works best here, `draft` a few minutes on a CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Mapping

from dreamwright.backend.config import (
    BackgroundConfig,
    CameraConfig,
    Config,
    FieldConfig,
    GuidanceConfig,
    MeshConfig,
    OptimizerConfig,
    RegulariserConfig,
    RenderConfig,
    RunConfig,
    ShadingConfig,
)
from dreamwright.backend.errors import ConfigError


@dataclass(frozen=True)
class Preset:
    """A named configuration with one line about it."""

    name: str
    summary: str
    config: Config


PAPER = Config()  # the defaults of config.py are the paper's numbers

DRAFT = Config(
    run=RunConfig(steps=700, views_per_step=1, checkpoint_interval=100, preview_interval=25),
    camera=CameraConfig(
        elevation_min=-5.0,
        elevation_max=80.0,  # straight down says little about a prop
        distance_min=1.7,
        distance_max=2.1,
        framing="fill",  # the prop always fills a similar share, as in the starter's pictures
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
        ambient_max=0.55,  # a range of lamps, as a prior meets them
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
        random_probability=1.0,  # or field and background collude
        random_kind="grey",  # as in the starter's pictures, where it says nothing about the prop
        random_min=0.3,
        random_max=0.8,
    ),
    render=RenderConfig(coarse_resolution=32, samples=80, occupancy_resolution=48, occupancy_interval=8),
    guidance=GuidanceConfig(
        omega=3.0,  # where the starter's own samples are best; at 20 its gradients pit the surface
        t_min=0.4,  # below, it agrees with any colour, and dark props stay dark
        t_max_end=0.75,
        view_words="eight",
        textureless_words="untextured",
        opposite_weight=2.0,  # a chair with one back: silhouette IoU 0.66 with 0, 0.71 with 1, 0.74 with 2
    ),
    regularisers=RegulariserConfig(
        orientation_start=0.0,
        orientation_end=0.0,
        opacity_start=0.008,  # without it fog fills the sphere, since grey backgrounds do not betray it; 0.1 takes thin parts too
        opacity_end=0.002,
        opacity_share=0.6,
        entropy_end=0.12,  # what is left of the fog decides for clear or solid
        smoothness=2.5,  # takes the pits; ten times as much takes a mushroom's stem too
    ),
    optimizer=OptimizerConfig(
        kind="adam",
        learning_rate=0.05,
        color_rate_multiplier=0.5,
        background_rate_multiplier=0.2,
        warmup_start=1e-4,
        warmup_share=0.04,
        final_rate=0.004,
        beta1=0.9,
        beta2=0.99,
        epsilon=1e-8,
    ),
    mesh=MeshConfig(resolution=96, triangles=12000, closing=0.035, smoothing=10),  # shape alone says more without lumps
)

STANDARD = replace(
    DRAFT,
    run=replace(DRAFT.run, steps=1000, views_per_step=2),
    mesh=replace(DRAFT.mesh, resolution=128, triangles=20000),
)

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("draft", "a prop in minutes on a CPU: voxels, one view a step", DRAFT),
        Preset("standard", "twice the views and more steps of the same recipe", STANDARD),
        Preset("paper", "DreamFusion as published: mip-NeRF field, Shampoo, 15,000 steps of 4 views", PAPER),
    )
}


def get_preset(name: str) -> Preset:
    """The preset of that name. Raises ConfigError listing the known ones."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; allowed are {', '.join(PRESETS)}; choose one with --preset")
    return PRESETS[name]
