# SPDX-License-Identifier: GPL-3.0-or-later
"""Training of a radiance field with a given guidance, without a job or a model folder."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ..config.schema import Config
from ..guidance.interfaces import Guidance
from ..runtime.distributed import ProcessGroup
from ..scenes.field_scene import FieldScene
from ..scenes.field_surface_scene import FieldSurfaceScene
from ..scenes.initial_field import InitialField
from ..scenes.interfaces import RunState
from ..text.prompts import PromptEmbeddings
from .trainer import Trainer


def field_factory(
    config: Config,
    guidance: Guidance,
    prompts: PromptEmbeddings,
    device: torch.device | str = "cpu",
    group: ProcessGroup | None = None,
    initial_field: InitialField | None = None,
    surface_guidance: Guidance | None = None,
    surface_prompts: PromptEmbeddings | None = None,
) -> Callable[[int], FieldScene | FieldSurfaceScene]:
    """A function that makes the field scene of a seed, from `initial_field` where there is one.

    `surface_guidance`: of the stage of the field's mesh, in a run that has one. `surface_prompts`: of that guidance,
    None for those of the field's.
    """

    def make_scene(seed: int) -> FieldScene | FieldSurfaceScene:
        scene = FieldScene(config, guidance, prompts, seed, device, group)
        if initial_field is not None:
            scene.initialize_from(initial_field)
        return scene if surface_guidance is None else FieldSurfaceScene(scene, surface_guidance, surface_prompts)

    return make_scene


def field_trainer(
    config: Config,
    guidance: Guidance,
    prompts: PromptEmbeddings,
    resume: RunState | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.monotonic,
    group: ProcessGroup | None = None,
    initial_field: InitialField | None = None,
    surface_guidance: Guidance | None = None,
    is_watched: Callable[[], bool] = lambda: False,
) -> Trainer:
    """A trainer of a field, from `resume` or else from `initial_field`.

    Raises CheckpointError for one that does not fit.
    """
    make_scene = field_factory(config, guidance, prompts, device, group, initial_field, surface_guidance)
    return Trainer(make_scene, config.run, resume, should_stop, clock, group, is_watched)
