# SPDX-License-Identifier: GPL-3.0-or-later
"""Fine-tuning: a run starts from the field of another run with another prompt (figure 4 of the paper)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreamwright.backend.errors import CheckpointError
from dreamwright.backend.scenes.field_scene import FieldScene
from dreamwright.backend.scenes.initial_field import FIELD_FILE, InitialField, read_initial_field, save_field
from dreamwright.backend.scenes.interfaces import RunState
from dreamwright.backend.training.checkpoints import NEWEST, read_checkpoint, write_checkpoint
from dreamwright.backend.training.events import Checkpoint, Finished, Restarted, StepCompleted
from dreamwright.backend.training.job import Job, make_job
from dreamwright.backend.training.trainer import Trainer
from tests.testing.oracles import KnownImages
from tests.testing.sphere_runs import run_of
from tests.testing.tiny_model import quick_config

SETTINGS = ("run.steps=6", "run.checkpoint_interval=2")


@pytest.fixture
def finished(oracle: KnownImages, tmp_path: Path) -> tuple[Job, RunState, Path]:
    """A job, its last state, and the folder with its field."""
    config = quick_config(*SETTINGS)
    job = make_job("a ball", "oracle", "draft", config)
    state = [event.state for event in run_of(config, oracle) if isinstance(event, Checkpoint)][-1]
    save_field(tmp_path / "first", job, state)
    return job, state, tmp_path / "first"


def fields_agree(scene: FieldScene, tensors: dict[str, torch.Tensor]) -> bool:
    own = {f"field.{name}": value for name, value in scene.field.state_dict().items()}
    return all(torch.equal(value, tensors[name]) for name, value in own.items())


def refined(oracle: KnownImages, origin: InitialField, *settings: str, **options: object) -> Trainer:
    return run_of(quick_config(*SETTINGS, *settings), oracle, initial_field=origin, **options)


def test_finetuning_starts_in_the_middle_of_the_schedules(
    finished: tuple[Job, RunState, Path], oracle: KnownImages
) -> None:
    _, state, folder = finished
    origin = read_initial_field(folder)
    run = refined(oracle, origin)
    assert origin.prompt == "a ball" and fields_agree(run.scene, dict(state.tensors))
    assert run.scene.step == 3  # half of six steps
    events = list(run)
    assert [event.step for event in events if isinstance(event, StepCompleted)] == [4, 5, 6]
    assert events[-1] == Finished(6, True, 0) and not fields_agree(run.scene, dict(state.tensors))


@pytest.mark.parametrize(("share", "step"), [("0", 0), ("0.34", 2), ("0.99", 5)])
def test_finetune_share_sets_the_first_step(
    share: str, step: int, finished: tuple[Job, RunState, Path], oracle: KnownImages
) -> None:
    assert refined(oracle, read_initial_field(finished[2]), f"run.finetune_share={share}").scene.step == step


def test_optimizer_and_random_streams_are_fresh(finished: tuple[Job, RunState, Path], oracle: KnownImages) -> None:
    fresh, started = run_of(quick_config(*SETTINGS), oracle), refined(oracle, read_initial_field(finished[2]))
    assert not started.scene.optimizer.state_dict()["state"]
    assert all(
        torch.equal(stream.get_state(), started.scene.streams[name].get_state())
        for name, stream in fresh.scene.streams.items()
    )


def test_field_file_and_checkpoint_give_the_same_field(finished: tuple[Job, RunState, Path], tmp_path: Path) -> None:
    job, state, folder = finished
    checkpoint = write_checkpoint(tmp_path / "work", job, state)
    kept, whole = read_initial_field(folder), read_initial_field(tmp_path / "work")
    assert kept.tensors.keys() == whole.tensors.keys() and all(
        torch.equal(v, whole.tensors[k]) for k, v in kept.tensors.items()
    )
    assert all(name.startswith(("field.", "background.")) for name in kept.tensors)
    # A checkpoint holds two moments per weight besides, so the field is a third of it.
    assert (folder / FIELD_FILE).stat().st_size < 0.5 * checkpoint.stat().st_size
    assert read_initial_field(checkpoint).digest == whole.digest != kept.digest


def test_run_resumes_exactly_and_only_with_the_same_field(
    finished: tuple[Job, RunState, Path], oracle: KnownImages, tmp_path: Path
) -> None:
    origin = read_initial_field(finished[2])
    config = quick_config(*SETTINGS)
    job = replace(make_job("a ball", "oracle", "draft", config), initial_field=origin.digest)
    whole = refined(oracle, origin)
    states = [event.state for event in whole if isinstance(event, Checkpoint)]
    assert [state.step for state in states] == [4, 6]
    write_checkpoint(tmp_path, job, states[0])
    resumed = refined(oracle, origin, resume=read_checkpoint(tmp_path, job).state)
    list(resumed)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.scene.shared_tensors(), resumed.scene.shared_tensors(), strict=True)
    )
    for other in ("", "0" * 64):
        with pytest.raises(CheckpointError, match="another run"):
            read_checkpoint(tmp_path, replace(job, initial_field=other))


def test_finetune_share_is_in_the_fingerprint_with_a_field_only() -> None:
    job = make_job("a ball", "oracle", "draft", quick_config())
    other = make_job("a ball", "oracle", "draft", quick_config("run.finetune_share=0.2"))
    assert job.fingerprint() == other.fingerprint()
    assert replace(job, initial_field="a").fingerprint() not in (
        job.fingerprint(),
        replace(other, initial_field="a").fingerprint(),
    )


def test_restart_reloads_the_initial_field(
    finished: tuple[Job, RunState, Path], oracle: KnownImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step diverges; the restarted run starts from the initial field, not from a fresh one."""
    _, state, folder = finished
    run = refined(oracle, read_initial_field(folder), "run.max_restarts=1")
    started = []
    train_step = FieldScene.train_step

    def going_wrong_once(self: FieldScene) -> dict[str, float]:
        from dreamwright.backend.scenes.interfaces import DivergedError

        started.append((self.step, fields_agree(self, dict(state.tensors))))
        if len(started) == 1:
            raise DivergedError("on purpose")
        return train_step(self)

    monkeypatch.setattr(FieldScene, "train_step", going_wrong_once)
    assert any(isinstance(event, Restarted) for event in list(run))
    assert started[:2] == [(3, True), (3, True)] and len(started) == 4


def test_field_of_another_size_is_refused(finished: tuple[Job, RunState, Path], oracle: KnownImages) -> None:
    with pytest.raises(CheckpointError, match="field of 'a ball' does not fit.*preset") as caught:
        refined(oracle, read_initial_field(finished[2]), "field.voxel_resolutions=4,12")
    assert "\n" not in str(caught.value)


def test_background_of_another_kind_is_reset_with_a_warning(
    finished: tuple[Job, RunState, Path], oracle: KnownImages
) -> None:
    run = refined(oracle, read_initial_field(finished[2]), "background.kind=mlp")
    assert any("background begins anew" in warning for warning in run.scene.warnings)


@pytest.mark.parametrize("damage", ["nothing there", "flipped", "foreign", "no field"])
def test_folder_without_a_complete_field_is_refused(
    damage: str, finished: tuple[Job, RunState, Path], tmp_path: Path
) -> None:
    job, state, folder = finished
    path = folder / FIELD_FILE
    if damage == "nothing there":
        path.unlink()
    elif damage == "flipped":
        data = bytearray(path.read_bytes())
        data[-20] ^= 4
        path.write_bytes(data)
    elif damage == "foreign":
        path.write_bytes(b"glTF")
    else:
        tensors = {name: value for name, value in state.tensors.items() if name.startswith("stream")}
        path.unlink()
        write_checkpoint(folder, job, RunState(1, 0, 0, tensors))
        assert (folder / NEWEST).is_file()
    with pytest.raises(CheckpointError, match="--keep-work") as caught:
        read_initial_field(folder)
    assert "\n" not in str(caught.value)


def test_disk_error_keeps_the_old_field(
    finished: tuple[Job, RunState, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, state, folder = finished
    before = (folder / FIELD_FILE).read_bytes()
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match="free some space"):
        save_field(blocked, job, state)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dreamwright.backend.scenes.initial_field.os.replace", refuse)
    with pytest.raises(CheckpointError, match="No space left"):
        save_field(folder, job, RunState(state.step + 1, 0, 0, state.tensors))
    assert [path.name for path in folder.iterdir()] == [FIELD_FILE] and (folder / FIELD_FILE).read_bytes() == before
