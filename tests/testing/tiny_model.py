# SPDX-License-Identifier: GPL-3.0-or-later
"""A tiny, untrained starter pipeline on disk, and a quick configuration, for tests of complete runs."""

from __future__ import annotations

from pathlib import Path

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.recipes.starter import DRAFT
from dreamwright.backend.config.schema import Config
from dreamwright.backend.starter.architecture import Widths, build_parts, save_pipeline

NAME = "tests/tiny"
TINY = Widths(channels=(16, 32), norm_groups=8, attentive_levels=1)
ONE_VIEW = ("run.views_per_step=1", "camera.views_per_set=1", "guidance.noises=1")
QUICK = (
    "run.steps=6",
    "surface.steps=0",
    *ONE_VIEW,
    "run.checkpoint_interval=2",
    "run.preview_interval=3",
    "render.resolution=16",
    "render.samples=16",
    "render.occupancy_resolution=12",
    "field.voxel_resolutions=6,12",
    "mesh.resolution=24",
    "mesh.triangles=400",
)

# An untrained model moves the field at random. At these rates the field of a long run neither fills nor empties.
SLOW_RATES = {"optimizer.learning_rate": "0.004", "optimizer.final_rate": "0.004"}


def save_tiny_model(folder: Path) -> Path:
    """Write the pipeline; returns its folder."""
    import torch

    save_pipeline(build_parts(0, TINY), folder, torch.float32)
    return folder


def offer_tiny_model(models: Path) -> str:
    """Write the pipeline to a model folder, so that clients may request it by name; returns the name."""
    save_tiny_model(models / NAME.replace("/", "--"))
    return NAME


def quick_config(*settings: str) -> Config:
    """The draft preset reduced to a second of work."""
    return apply_settings(DRAFT, [*QUICK, *settings])
