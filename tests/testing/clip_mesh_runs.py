# SPDX-License-Identifier: GPL-3.0-or-later
"""A tiny CLIP, and short clip-mesh runs that it guides."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.recipes.clip import CLIP_MESH
from dreamwright.backend.config.schema import Config
from dreamwright.backend.guidance.clip_guidance import ClipGuidance
from dreamwright.backend.guidance.clip_model import ImageTextModel, load_image_text
from dreamwright.backend.scenes.sphere_scene import SphereScene
from dreamwright.backend.text.prompts import PromptEmbeddings
from tests.testing.tiny_clip import write_clip

PROMPT = "a red mushroom"
QUICK = (
    "run.steps=6",
    "run.views_per_step=2",
    "run.checkpoint_interval=2",
    "run.preview_interval=3",
    "render.resolution=24",
    "refine.supersampling=1",
    "clip.crops=2",
    "sphere.subdivisions=2",
)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny CLIP, read-only."""
    return write_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def clip_model(clip_folder: Path) -> ImageTextModel:
    """The tiny CLIP."""
    return load_image_text(clip_folder)


def quick_clip_mesh(*settings: str) -> Config:
    """The preset clip-mesh with few steps of small images, changed by "name=value" settings."""
    return apply_settings(CLIP_MESH, [*QUICK, *settings])


def sphere_scene(model: ImageTextModel, *settings: str) -> SphereScene:
    """The scene of `quick_clip_mesh` for PROMPT and seed 0."""
    config = quick_clip_mesh(*settings)
    return SphereScene(config, ClipGuidance(model, config.clip), PromptEmbeddings(model, PROMPT, config.guidance), 0)
