# SPDX-License-Identifier: GPL-3.0-or-later
"""A run can begin from another run's field, with another prompt: the paper's iterative refinement (figure 4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreamwright.backend.errors import CheckpointError
from dreamwright.backend.scenes.field_scene import Distiller
from dreamwright.backend.scenes.initial_field import FIELD_FILE, Origin, keep_field, read_origin
from dreamwright.backend.training.checkpoints import NEWEST, read_checkpoint, write_checkpoint
from dreamwright.backend.training.events import Checkpoint, Finished, Progress, Restarted, RunState
from dreamwright.backend.training.job import Job, make_job
from dreamwright.backend.training.trainer import Run
from tests.testing.oracles import KnownImages
from tests.testing.sphere_runs import oracle, run_of  # noqa: F401 (a fixture)
from tests.testing.tiny_model import quick_config

SETTINGS = ("run.steps=6", "run.checkpoint_interval=2")


@pytest.fixture
def finished(oracle: KnownImages, tmp_path: Path) -> tuple[Job, RunState, Path]:
    """A job, its last state, and the folder with its field."""
    config = quick_config(*SETTINGS)
    job = make_job("a ball", "oracle", "draft", config)
    state = [event.state for event in run_of(config, oracle) if isinstance(event, Checkpoint)][-1]
    keep_field(tmp_path / "first", job, state)
    return job, state, tmp_path / "first"


def fields_agree(distiller: Distiller, tensors: dict[str, torch.Tensor]) -> bool:
    own = {f"field.{name}": value for name, value in distiller.field.state_dict().items()}
    return all(torch.equal(value, tensors[name]) for name, value in own.items())


def refined(oracle: KnownImages, origin: Origin, *settings: str, **options: object) -> Run:
    return run_of(quick_config(*SETTINGS, *settings), oracle, origin=origin, **options)


def test_the_new_run_begins_with_the_old_field_in_the_middle_of_its_schedules(
    finished: tuple[Job, RunState, Path], oracle: KnownImages
) -> None:
    _, state, folder = finished
    origin = read_origin(folder)
    run = refined(oracle, origin)
    assert origin.prompt == "a ball" and fields_agree(run.distiller, dict(state.tensors))
    assert run.distiller.step == 3  # half of six steps
    events = list(run)
    assert [event.step for event in events if isinstance(event, Progress)] == [4, 5, 6]
    assert events[-1] == Finished(6, True, 0) and not fields_agree(run.distiller, dict(state.tensors))


@pytest.mark.parametrize(("share", "step"), [("0", 0), ("0.34", 2), ("0.99", 5)])
def test_refine_share_says_where_in_its_schedules_it_begins_and_leaves_a_step_to_take(
    share: str, step: int, finished: tuple[Job, RunState, Path], oracle: KnownImages
) -> None:
    assert refined(oracle, read_origin(finished[2]), f"run.refine_share={share}").distiller.step == step


def test_the_optimizer_and_the_draws_are_those_of_a_fresh_run(
    finished: tuple[Job, RunState, Path], oracle: KnownImages
) -> None:
    fresh, begun = run_of(quick_config(*SETTINGS), oracle), refined(oracle, read_origin(finished[2]))
    assert not begun.distiller.optimizer.state_dict()["state"]
    assert all(
        torch.equal(stream.get_state(), begun.distiller.streams[name].get_state())
        for name, stream in fresh.distiller.streams.items()
    )


def test_the_kept_file_is_the_field_alone_and_a_checkpoint_serves_as_well(
    finished: tuple[Job, RunState, Path], tmp_path: Path
) -> None:
    job, state, folder = finished
    checkpoint = write_checkpoint(tmp_path / "work", job, state)
    kept, whole = read_origin(folder), read_origin(tmp_path / "work")
    assert kept.tensors.keys() == whole.tensors.keys() and all(
        torch.equal(v, whole.tensors[k]) for k, v in kept.tensors.items()
    )
    assert all(name.startswith(("field.", "background.")) for name in kept.tensors)
    assert (folder / FIELD_FILE).stat().st_size < 0.5 * checkpoint.stat().st_size
    assert read_origin(checkpoint).digest == whole.digest != kept.digest


def test_a_refining_run_resumes_exactly_and_only_with_the_same_origin(
    finished: tuple[Job, RunState, Path], oracle: KnownImages, tmp_path: Path
) -> None:
    origin = read_origin(finished[2])
    config = quick_config(*SETTINGS)
    job = replace(make_job("a ball", "oracle", "draft", config), origin=origin.digest)
    whole = refined(oracle, origin)
    states = [event.state for event in whole if isinstance(event, Checkpoint)]
    assert [state.step for state in states] == [4, 6]
    write_checkpoint(tmp_path, job, states[0])
    resumed = refined(oracle, origin, resume=read_checkpoint(tmp_path, job).state)
    list(resumed)
    assert all(torch.equal(a, b) for a, b in zip(whole.distiller.shared(), resumed.distiller.shared(), strict=True))
    for other in ("", "0" * 64):
        with pytest.raises(CheckpointError, match="another run"):
            read_checkpoint(tmp_path, replace(job, origin=other))


def test_where_a_run_begins_matters_only_when_it_has_an_origin() -> None:
    job = make_job("a ball", "oracle", "draft", quick_config())
    other = make_job("a ball", "oracle", "draft", quick_config("run.refine_share=0.2"))
    assert job.fingerprint() == other.fingerprint()
    assert replace(job, origin="a").fingerprint() not in (job.fingerprint(), replace(other, origin="a").fingerprint())


def test_a_restart_begins_from_the_origin_again(
    finished: tuple[Job, RunState, Path], oracle: KnownImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step goes wrong; what comes after it began where the origin ends, not from a fresh field."""
    _, state, folder = finished
    run = refined(oracle, read_origin(folder), "run.max_restarts=1")
    begun = []
    advance = Distiller.advance

    def going_wrong_once(self: Distiller) -> dict[str, float]:
        from dreamwright.backend.scenes.field_scene import Diverged

        begun.append((self.step, fields_agree(self, dict(state.tensors))))
        if len(begun) == 1:
            raise Diverged("on purpose")
        return advance(self)

    monkeypatch.setattr(Distiller, "advance", going_wrong_once)
    assert any(isinstance(event, Restarted) for event in list(run))
    assert begun[:2] == [(3, True), (3, True)] and len(begun) == 4


def test_a_field_of_another_size_is_refused_with_what_to_do(
    finished: tuple[Job, RunState, Path], oracle: KnownImages
) -> None:
    with pytest.raises(CheckpointError, match="field of 'a ball' does not fit.*preset") as caught:
        refined(oracle, read_origin(finished[2]), "field.voxel_resolutions=4,12")
    assert "\n" not in str(caught.value)


def test_a_background_of_another_kind_begins_anew_and_is_mentioned(
    finished: tuple[Job, RunState, Path], oracle: KnownImages
) -> None:
    run = refined(oracle, read_origin(finished[2]), "background.kind=mlp")
    assert any("background begins anew" in warning for warning in run.warnings)


@pytest.mark.parametrize("damage", ["nothing there", "flipped", "foreign", "no field"])
def test_a_place_without_a_whole_field_is_refused_in_one_line(
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
        read_origin(folder)
    assert "\n" not in str(caught.value)


def test_a_disk_that_refuses_leaves_no_half_field_and_keeps_the_old_one(
    finished: tuple[Job, RunState, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, state, folder = finished
    before = (folder / FIELD_FILE).read_bytes()
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match="free some space"):
        keep_field(blocked, job, state)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dreamwright.backend.scenes.initial_field.os.replace", refuse)
    with pytest.raises(CheckpointError, match="No space left"):
        keep_field(folder, job, RunState(state.step + 1, 0, 0, state.tensors))
    assert [path.name for path in folder.iterdir()] == [FIELD_FILE] and (folder / FIELD_FILE).read_bytes() == before
