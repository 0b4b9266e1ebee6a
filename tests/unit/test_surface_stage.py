# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage after the field: one run of two stages, resumed exactly, stopped, short of memory, and its mesh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dreamwright.backend.errors import CheckpointError, OutOfMemoryError
from dreamwright.backend.scenes import field_scene
from dreamwright.backend.scenes.derived_config import surface_config, surface_guidance
from dreamwright.backend.scenes.field_scene import FieldScene
from dreamwright.backend.scenes.field_surface_scene import FieldSurfaceScene
from dreamwright.backend.scenes.initial_field import read_initial_field, save_field
from dreamwright.backend.scenes.interfaces import RunState
from dreamwright.backend.training.checkpoints import read_checkpoint, write_checkpoint
from dreamwright.backend.training.events import Event, Finished, Preparing, Preview, StepCompleted
from dreamwright.backend.training.job import make_job
from dreamwright.backend.training.trainer import Trainer
from tests.testing.oracles import KnownImages
from tests.testing.sphere_runs import ball_images, run_of
from tests.testing.staged_runs import (
    FIELD_STEPS,
    LAST,
    SURFACE_STEPS,
    assert_equal,
    checkpoints,
    staged_config,
    staged_run,
)
from tests.testing.tiny_model import quick_config


@pytest.fixture
def oracle() -> KnownImages:
    return KnownImages(lambda cameras: ball_images(cameras, 16), 16)


@pytest.fixture(scope="module")
def whole() -> tuple[Trainer, list[Event]]:
    """An undisturbed run and its events."""
    run = staged_run(staged_config(), KnownImages(lambda cameras: ball_images(cameras, 16), 16))
    return run, list(run)


def test_one_run_reports_the_steps_of_both_stages(whole: tuple[Trainer, list[Event]]) -> None:
    run, events = whole
    steps = [event for event in events if isinstance(event, StepCompleted)]
    assert [event.step for event in steps] == list(range(1, LAST + 1)) and {event.steps for event in steps} == {LAST}
    assert [event.step for event in events if isinstance(event, Preview)] == [3, 6, 9, LAST]
    assert list(checkpoints(events)) == [2, 4, 6, 8, LAST] and events[-1] == Finished(LAST, True, 0)
    made = [(event.step, bool(event.what)) for event in events if isinstance(event, Preparing)]
    assert made == [(FIELD_STEPS, True), (FIELD_STEPS + 1, False)]
    assert "bending" in steps[-1].scalars and "bending" not in steps[FIELD_STEPS - 1].scalars
    assert run.scene.provenance() == {"surface_steps": SURFACE_STEPS} and run.scene.is_done


def test_first_stage_is_the_run_without_the_second(whole: tuple[Trainer, list[Event]], oracle: KnownImages) -> None:
    """With surface.steps=0 there is no second stage; with it, the field's steps are the same to the bit."""
    plain = run_of(quick_config(), oracle)
    assert type(plain.scene) is FieldScene
    assert_equal(checkpoints(list(plain))[FIELD_STEPS], checkpoints(whole[1])[FIELD_STEPS])


@pytest.mark.parametrize("step", [4, FIELD_STEPS, 8])
def test_resume_is_exact_on_both_sides_of_the_boundary(
    step: int, whole: tuple[Trainer, list[Event]], oracle: KnownImages, tmp_path: Path
) -> None:
    run, events = whole
    job = make_job("a ball", "oracle", "draft", staged_config())
    write_checkpoint(tmp_path, job, checkpoints(events)[step])
    resumed = staged_run(job.config, oracle, resume=read_checkpoint(tmp_path, job).state)
    assert resumed.step == step
    rest = list(resumed)
    assert_equal(checkpoints(rest)[LAST], checkpoints(events)[LAST])
    first, second = run.scene.to_mesh()[0], resumed.scene.to_mesh()[0]
    assert np.array_equal(first.vertices, second.vertices) and np.array_equal(first.albedo, second.albedo)


@pytest.mark.parametrize(("stop", "begun"), [(4, False), (FIELD_STEPS, False), (FIELD_STEPS + 1, True)])
def test_stopped_run_has_the_mesh_of_its_stage(stop: int, begun: bool, oracle: KnownImages) -> None:
    run = staged_run(staged_config(), oracle, should_stop=lambda: run.step == stop)
    events = list(run)
    assert events[-1] == Finished(stop, False, 0) and list(checkpoints(events))[-1] == stop
    assert (run.scene.surface is not None) == begun
    before, after = run.scene.field.to_mesh()[0], run.scene.to_mesh()[0]
    assert np.array_equal(before.faces, after.faces)
    assert np.array_equal(before.vertices, after.vertices) != begun
    assert np.ptp(after.vertices[:, 2]) == pytest.approx(1.0, rel=1e-6)  # mesh.height_m, in float32


def test_shortage_of_memory_while_the_mesh_is_made_keeps_the_field(
    whole: tuple[Trainer, list[Event]], oracle: KnownImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*words: object, **options: object) -> None:
        raise MemoryError

    kept: list[Event] = []
    with monkeypatch.context() as patched, pytest.raises(OutOfMemoryError, match=r"step 6 is in a checkpoint"):
        patched.setattr(field_scene, "build_mesh", fail)
        kept.extend(staged_run(staged_config(), oracle))
    resumed = staged_run(staged_config(), oracle, resume=kept[-1].state)
    assert_equal(checkpoints(list(resumed))[LAST], checkpoints(whole[1])[LAST])


def test_field_is_kept_for_other_runs_and_its_optimizer_is_not(
    whole: tuple[Trainer, list[Event]], oracle: KnownImages, tmp_path: Path
) -> None:
    run, events = whole
    job, states = make_job("a ball", "oracle", "draft", staged_config()), checkpoints(events)
    assert not run.scene.field.optimizer.state
    assert not any(name.startswith("optimizer.") for name in states[LAST].tensors)
    save_field(tmp_path, job, states[LAST])
    origin = read_initial_field(tmp_path)
    field = {name: value for name, value in states[FIELD_STEPS].tensors.items() if name in origin.tensors}
    assert len(field) == len(origin.tensors) > 0
    assert all(torch.equal(value, origin.tensors[name]) for name, value in field.items())
    tuned = staged_run(staged_config(), oracle, initial_field=origin)
    assert tuned.step == FIELD_STEPS // 2 and list(tuned)[-1] == Finished(LAST, True, 0)


def test_texture_follows_the_changed_colors(oracle: KnownImages) -> None:
    """The texture's mean moves with the vertices' colors; a bake that is stopped leaves the texture out."""
    run = staged_run(staged_config("mesh.texture=64", "surface.color_rate=0.3"), oracle)
    list(run)
    scene = run.scene
    assert isinstance(scene, FieldSurfaceScene) and scene.surface is not None
    mesh, report = scene.to_mesh()
    before = scene.field.to_mesh()[0].texture
    assert mesh.texture is not None and before is not None and report.texture == 64
    assert np.array_equal(mesh.texture.unwrapping.corners, before.unwrapping.corners)
    assert not np.array_equal(mesh.texture.image, before.image)
    moved = mesh.texture.image.mean((0, 1)) / 255 - before.image.mean((0, 1)) / 255
    assert np.sign(moved).tolist() == np.sign(scene.surface.tints().mean(0)).tolist()
    assert scene.to_mesh(should_stop=lambda: True)[0].texture is None


def test_checkpoint_of_a_damaged_surface_is_refused(whole: tuple[Trainer, list[Event]], oracle: KnownImages) -> None:
    state = checkpoints(whole[1])[8]
    tensors = {name: value for name, value in state.tensors.items() if name != "surface.mesh.faces"}
    with pytest.raises(CheckpointError, match="holds no mesh of a field"):
        staged_run(staged_config(), oracle, resume=RunState(8, 0, 0, tensors))


def test_stage_has_its_own_times_and_length() -> None:
    config = staged_config("surface.t_min=0", "surface.t_max=0.3", "guidance.t_min=0.35", "surface.t_max_end=0.5")
    times = surface_guidance(config)
    assert (times.t_min, times.t_max, times.t_max_end) == (0.35, 0.35, 0.5)
    above = surface_guidance(staged_config("guidance.t_min=0.35", "surface.t_min=0.6", "surface.t_max_end=0.7"))
    assert (above.t_min, above.t_max_end) == (0.6, 0.7)
    derived = surface_config(config)
    assert derived.run.steps == SURFACE_STEPS and config.total_steps == LAST
    assert (
        derived.refine.strength == 1
        and derived.refine.colors
        and not surface_config(quick_config("surface.color_rate=0")).refine.colors
    )


def test_second_stage_goes_towards_the_known_image() -> None:
    """Where every image is of one color, the colors of vertices go there: 20 small steps take a third of the way."""
    red = torch.tensor([0.9, 0.2, 0.1])
    oracle = KnownImages(lambda cameras: red.view(1, 3, 1, 1).expand(len(cameras), 3, 16, 16), 16)
    # A smooth mesh and low times, so that all steps agree and the rates alone decide how far colors get.
    smooth = ("mesh.closing=0.035", "mesh.smoothing=10", "surface.normals=300")
    low = ("surface.t_min=0", "surface.t_max_end=0.75")
    settings = ("run.steps=2", "surface.steps=20", "guidance.omega=0", "shading.shaded_probability=0", *smooth, *low)
    run, errors = staged_run(staged_config(*settings), oracle), []
    for event in run:
        if isinstance(event, StepCompleted) and run.scene.surface is not None:
            colors = run.scene.surface.colors + run.scene.surface.color_changes()
            errors.append(float((colors.detach() - red).abs().mean()))
    assert len(errors) == 20 and errors[-1] < 0.67 * errors[0]
