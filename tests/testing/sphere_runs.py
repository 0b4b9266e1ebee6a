# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs towards known images of a ball, predicted by an oracle denoiser."""

from __future__ import annotations

import pytest
import torch

from dreamwright.backend.cameras.poses import Cameras
from dreamwright.backend.config.schema import Config
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.text.prompts import PromptEmbeddings
from dreamwright.backend.training.field_training import field_trainer
from dreamwright.backend.training.trainer import Trainer
from tests.testing.oracles import KnownImages


def ball_images(cameras: Cameras, size: int = 32, backdrop: float = 0.75) -> torch.Tensor:
    """Closed-form albedo images (n, 3, size, size) of a ball of radius 0.35, red above and blue below the equator."""
    from dreamwright.backend.cameras.poses import camera_rays
    from dreamwright.backend.rendering.sampling import sphere_interval

    rays = camera_rays(cameras, 4 * size)
    origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
    near, _, meets = sphere_interval(origins, directions, 0.35)
    upper = (origins + near[:, None] * directions)[:, 2:] > 0
    color = torch.where(upper, torch.tensor([0.9, 0.2, 0.1]), torch.tensor([0.1, 0.3, 0.8]))
    image = torch.where(meets[:, None], color, torch.full((1, 3), backdrop))
    image = image.view(len(cameras), 4 * size, 4 * size, 3).permute(0, 3, 1, 2)
    return torch.nn.functional.avg_pool2d(image, 4)


def run_of(config: Config, oracle: KnownImages, **options: object) -> Trainer:
    bank = PromptEmbeddings(oracle, "a ball", config.guidance)
    return field_trainer(config, ScoreDistillation(oracle, config.guidance), bank, **options)


@pytest.fixture
def oracle() -> KnownImages:
    return KnownImages(lambda cameras: ball_images(cameras, 16), 16)
