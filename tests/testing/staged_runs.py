# SPDX-License-Identifier: GPL-3.0-or-later
"""Short runs of two stages towards known images: a field, then its mesh."""

from __future__ import annotations

import torch

from dreamwright.backend.config.schema import Config
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.scenes.derived_config import surface_guidance
from dreamwright.backend.scenes.interfaces import RunState
from dreamwright.backend.training.events import Checkpoint, Event
from dreamwright.backend.training.trainer import Trainer
from tests.testing.oracles import KnownImages
from tests.testing.sphere_runs import run_of
from tests.testing.tiny_model import quick_config

FIELD_STEPS, SURFACE_STEPS = 6, 4
LAST = FIELD_STEPS + SURFACE_STEPS


def staged_config(*settings: str) -> Config:
    return quick_config(f"surface.steps={SURFACE_STEPS}", "surface.color_rate=0.12", *settings)


def staged_run(config: Config, oracle: KnownImages, **options: object) -> Trainer:
    return run_of(config, oracle, surface_guidance=ScoreDistillation(oracle, surface_guidance(config)), **options)


def checkpoints(events: list[Event]) -> dict[int, RunState]:
    return {event.state.step: event.state for event in events if isinstance(event, Checkpoint)}


def assert_equal(first: RunState, second: RunState) -> None:
    assert first.tensors.keys() == second.tensors.keys() and first.step == second.step
    assert [name for name, value in first.tensors.items() if not torch.equal(value, second.tensors[name])] == []
