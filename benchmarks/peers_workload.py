# SPDX-License-Identifier: GPL-3.0-or-later
"""What all contenders of `peers.py` share: views, guidance and the clock of a step's parts.

Lengths are in radii of each project's own bounding sphere, so that a ray of ours, divided by our radius, is the peer's
ray.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dreamwright.backend.cameras.poses import Cameras, camera_rays, sample_cameras, sample_lights
from dreamwright.backend.config.presets import get_preset
from dreamwright.backend.config.schema import BackgroundConfig, Config
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.guidance.interfaces import GuidanceResult
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.models.local import resolve_model
from dreamwright.backend.scenes.field_scene import STREAMS
from dreamwright.backend.text.prompts import PromptEmbeddings

PARTS = ("rendering", "guidance", "backward", "optimizer")
POINTS = "points"  # positions at which a step queries a network or grid
PROMPT, SEED, SAMPLES = "a red mushroom", 0, 96


class PartTimes:
    """Seconds of one step by part; the rest is rendering."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started


def with_rest(split: PartTimes, total: float) -> dict[str, float]:
    """The parts with rendering as the rest of the total."""
    rest = total - sum(split.seconds.values())
    return {**split.seconds, "rendering": split.seconds["rendering"] + rest}


def workload(resolution: int) -> Config:
    """The workload of all contenders: one shaded view of resolution^2 rays, a learned background, draft's cameras."""
    draft = get_preset("draft").config
    return replace(
        draft,
        run=replace(draft.run, views_per_step=1),
        camera=replace(draft.camera, views_per_set=1),
        guidance=replace(draft.guidance, noises=1),
        render=replace(draft.render, resolution=resolution, coarse_resolution=0, samples=SAMPLES),
        shading=replace(draft.shading, albedo_only_share=0.0, shaded_probability=1.0, textureless_probability=0.0),
        background=BackgroundConfig(kind="mlp", encoding_levels=4, hidden_width=32, random_probability=0.0),
    )


class SharedGuidance:
    """The starter's SDS gradient, which all contenders use."""

    def __init__(self, config: Config) -> None:
        denoiser = load_denoiser(resolve_model("starter"))
        self.bank = PromptEmbeddings(denoiser, PROMPT, config.guidance)
        denoiser.free_text_encoder()
        self._distillation = ScoreDistillation(denoiser, config.guidance)
        self.split = PartTimes()

    def gradient(
        self, image: Tensor, cameras: Any, conditioning: Any, generator: Any, progress: float
    ) -> GuidanceResult:
        with self.split.part("guidance"):
            return self._distillation.gradient(image, cameras, conditioning, generator, progress)


class Views:
    """The cameras and lights that a FieldScene of this seed draws, in the same order."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.generator = torch.Generator()
        self.rewind()

    def rewind(self) -> None:
        """Restart from the first camera."""
        self.generator.manual_seed(SEED * len(STREAMS) + STREAMS.index("cameras") + 1)

    def next(self) -> tuple[Cameras, Tensor]:
        cameras = sample_cameras(self.config.camera, 1, self.generator)
        return cameras, sample_lights(self.config.light, cameras, self.generator)

    def next_rays(self) -> tuple[Cameras, Tensor, Tensor, Tensor]:
        """Cameras, ray origins and unit directions (rays, 3) and the light (1, 3), lengths in bounding radii."""
        cameras, light = self.next()
        rays, radius = camera_rays(cameras, self.config.render.resolution), self.config.field.bounding_radius
        return cameras, rays.origins[0].contiguous() / radius, rays.directions[0].contiguous(), light / radius
