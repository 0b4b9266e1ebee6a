# SPDX-License-Identifier: GPL-3.0-or-later
"""VSD's LoRA as a part of a run: resuming, stages, failed steps and restarts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from dreamwright.backend.errors import CheckpointError
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.guidance.lora_estimate import LoraEstimate
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.scenes.derived_config import surface_guidance
from dreamwright.backend.scenes.field_scene import FieldScene
from dreamwright.backend.scenes.field_surface_scene import FieldSurfaceScene
from dreamwright.backend.text.prompts import PromptEmbeddings
from tests.testing.tiny_model import quick_config
from tests.testing.tiny_pipeline import write_pipeline

LEARNING = quick_config(
    "guidance.rule=vsd", "guidance.lora_rate=0.01", "run.views_per_step=2", "run.views_at_once=1",
    "guidance.view_words=four", "guidance.noises=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("models") / "pixel")


def learning_estimate(folder: Path) -> LoraEstimate:
    return LoraEstimate(load_denoiser(folder), LEARNING.guidance)


def scene_of(estimate: LoraEstimate) -> FieldScene:
    bank = PromptEmbeddings(estimate.denoiser, "a red mushroom", LEARNING.guidance)
    return FieldScene(LEARNING, ScoreDistillation(estimate.denoiser, LEARNING.guidance, estimate), bank, 0)


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_resumed_run_equals_an_uninterrupted_one(folder):
    """Field, LoRA and both optimizers after 2 + 2 steps, bit by bit those after 4.

    In one network, as a kernel may round by where the weights lie in memory; another one takes over the same state.
    """
    estimate = learning_estimate(folder)
    whole = scene_of(estimate)
    for _ in range(2):
        whole.train_step()
    kept = whole.state()
    for _ in range(2):
        whole.train_step()
    ended = whole.state().tensors
    learned = [name for name in kept.tensors if name.startswith("guidance.weights.")]
    assert any(not torch.equal(kept.tensors[name], ended[name]) for name in learned)
    estimate.reset(99)  # of another run
    resumed = scene_of(estimate)
    resumed.load(kept)
    for _ in range(2):
        resumed.train_step()
    assert same(ended, resumed.state().tensors)
    elsewhere = scene_of(learning_estimate(folder))
    elsewhere.load(kept)
    assert same(kept.tensors, elsewhere.state().tensors)


def test_both_stages_of_a_run_train_one_lora(folder):
    """The surface stage goes on with what the field's has taught, and a run that resumes in it does too."""
    config = dataclasses.replace(
        LEARNING,
        run=dataclasses.replace(LEARNING.run, steps=1, views_at_once=0),
        surface=dataclasses.replace(LEARNING.surface, steps=2),
    )
    estimate = learning_estimate(folder)

    def run() -> FieldSurfaceScene:
        bank = PromptEmbeddings(estimate.denoiser, "a red mushroom", config.guidance)
        field = ScoreDistillation(estimate.denoiser, config.guidance, estimate)
        surface = ScoreDistillation(estimate.denoiser, surface_guidance(config), estimate)
        return FieldSurfaceScene(FieldScene(config, field, bank, 0), surface)

    whole = run()
    whole.train_step()
    first = dict(whole.state().tensors)
    whole.train_step()
    kept = whole.state()
    learned = {name: value for name, value in first.items() if name.startswith("guidance.weights.")}
    assert learned and all(f"surface.{name}" in kept.tensors for name in learned)
    assert any(not torch.equal(value, kept.tensors[f"surface.{name}"]) for name, value in learned.items())
    whole.train_step()
    ended = whole.state().tensors
    estimate.reset(99)
    resumed = run()
    resumed.load(kept)
    resumed.train_step()
    assert same(ended, resumed.state().tensors)


def test_a_state_of_another_lora_is_refused(folder):
    kept = scene_of(learning_estimate(folder))
    kept.train_step()
    state = kept.state()
    wide = LoraEstimate(load_denoiser(folder), dataclasses.replace(LEARNING.guidance, lora_rank=2))
    with pytest.raises(CheckpointError, match="does not fit this run"):
        scene_of(wide).load(state)
    without = {name: value for name, value in state.tensors.items() if not name.startswith("guidance.optimizer.")}
    with pytest.raises(CheckpointError, match="the optimizer's state is missing"):
        scene_of(learning_estimate(folder)).load(dataclasses.replace(state, tensors=without))


def test_a_step_that_fails_teaches_nothing(folder, monkeypatch):
    """The second chunk runs out of memory: the weights and their gradients are as before, and the step can be taken."""
    estimate = learning_estimate(folder)
    scene = scene_of(estimate)
    scene.train_step()
    before = {name: value.clone() for name, value in scene.state().tensors.items()}
    gradient, calls = ScoreDistillation.gradient, []

    def fail(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("out of memory")
        return gradient(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ScoreDistillation, "gradient", fail)
        with pytest.raises(torch.OutOfMemoryError):
            scene.train_step()
    assert all(torch.equal(before[name], value) for name, value in scene.state().tensors.items())
    assert all(weight.grad is None for weight in estimate.weights.values())
    scene.train_step()


def test_a_seed_begins_anew(folder):
    estimate, starts = learning_estimate(folder), []
    for seed in (1, 2, 1):
        estimate.reset(seed)
        assert not estimate.optimizer.state
        starts.append({name: weight.detach().clone() for name, weight in estimate.weights.items()})
    assert all(torch.equal(starts[0][name], starts[2][name]) for name in starts[0])
    assert any(not torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
