# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints on disk: damaged, foreign, newer or other runs' files are refused, or the previous one is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dreamwright.backend.errors import CheckpointError
from dreamwright.backend.scenes.interfaces import RunState
from dreamwright.backend.training.checkpoints import (
    FORMAT,
    NEWEST,
    PREVIOUS,
    VERSION,
    has_checkpoint,
    read_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)
from dreamwright.backend.training.events import Checkpoint
from dreamwright.backend.training.job import Job, make_job
from tests.testing.oracles import KnownImages
from tests.testing.sphere_runs import run_of
from tests.testing.tiny_model import quick_config


@pytest.fixture
def saved(oracle: KnownImages, tmp_path: Path) -> tuple[Job, Path]:
    """A job with two checkpoints on disk."""
    config = quick_config()
    job = make_job("a ball", "oracle", "draft", config)
    for event in run_of(config, oracle):
        if isinstance(event, Checkpoint):
            write_checkpoint(tmp_path, job, event.state)
    return job, tmp_path


def test_damaged_checkpoint_falls_back_with_a_notice(saved: tuple[Job, Path]) -> None:
    job, folder = saved
    newest = folder / NEWEST
    newest.write_bytes(newest.read_bytes()[:5000])
    restored = read_checkpoint(folder, job)
    assert restored.state.step == 4 and "damaged" in restored.notice


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"\xff" * 4096])
def test_foreign_files_are_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / NEWEST).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path, make_job("a ball", "oracle", "draft", quick_config()))
    assert "\n" not in str(caught.value) and "--resume" in str(caught.value)


@pytest.mark.parametrize(
    "numbers",
    ["{}", "[]", "3", '{"step": "2", "seed": 0, "restarts": 0}', '{"step": -1, "seed": 0, "restarts": 0}', "{"],
)
def test_incomplete_header_is_damage(numbers: str, tmp_path: Path) -> None:
    job = make_job("a ball", "oracle", "draft", quick_config())
    header = {"format": FORMAT, "version": str(VERSION), "fingerprint": job.fingerprint(), "run": numbers}
    save_file({"a": torch.zeros(2)}, tmp_path / NEWEST, metadata=header)
    with pytest.raises(CheckpointError, match="damaged") as caught:
        read_checkpoint(tmp_path, job)
    assert "\n" not in str(caught.value)


def test_newer_version_falls_back_to_the_previous_checkpoint(saved: tuple[Job, Path]) -> None:
    job, folder = saved
    save_file({"a": torch.zeros(2)}, folder / NEWEST, metadata={"format": FORMAT, "version": str(VERSION + 1)})
    restored = read_checkpoint(folder, job)
    assert restored.state.step == 4 and "update dreamwright" in restored.notice


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.999])
def test_flipped_bit_anywhere_falls_back(share: float, saved: tuple[Job, Path]) -> None:
    """A flipped bit may damage JSON, a number, a name or a tensor. The checkpoint of step 4 is loaded in each case."""
    job, folder = saved
    data = bytearray((folder / NEWEST).read_bytes())
    data[int(share * len(data))] ^= 0x10
    (folder / NEWEST).write_bytes(data)
    restored = read_checkpoint(folder, job)
    assert restored.state.step == 4 and "damaged" in restored.notice


def test_checkpoint_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    job = make_job("a ball", "oracle", "draft", quick_config())
    save_file({"a": torch.zeros(2)}, tmp_path / NEWEST, metadata={"format": FORMAT, "version": str(VERSION + 1)})
    with pytest.raises(CheckpointError, match="update dreamwright"):
        read_checkpoint(tmp_path, job)


@pytest.mark.parametrize("mistake", ["shape", "missing", "unknown key"])
def test_optimizer_state_that_does_not_fit_is_refused(mistake: str, oracle: KnownImages) -> None:
    run = run_of(quick_config(), oracle)
    state = next(event.state for event in run if isinstance(event, Checkpoint))
    tensors = dict(state.tensors)
    if mistake == "shape":
        tensors["optimizer.0.exp_avg"] = torch.zeros(3)
    elif mistake == "missing":
        tensors = {name: t for name, t in tensors.items() if not name.startswith("optimizer.")}
    else:
        tensors["optimizer.99.exp_avg"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match="optimi[sz]er.*--resume"):
        run_of(quick_config(), oracle, resume=replace(state, tensors=tensors))


def test_disk_error_is_reported_in_one_line(tmp_path: Path) -> None:
    """safetensors raises its own error type. A folder at the path of the file simulates the disk error."""
    (tmp_path / f"{NEWEST}.part").mkdir()
    job = make_job("a ball", "oracle", "draft", quick_config())
    with pytest.raises(CheckpointError, match="--work") as caught:
        write_checkpoint(tmp_path, job, RunState(1, 0, 0, {"a": torch.zeros(2)}))
    assert "\n" not in str(caught.value)


def test_removing_checkpoints_keeps_other_files(saved: tuple[Job, Path]) -> None:
    _, folder = saved
    assert (folder / PREVIOUS).is_file()
    (folder / "thesis.txt").write_text("precious")
    remove_checkpoints(folder)
    assert [p.name for p in folder.iterdir()] == ["thesis.txt"]
    (folder / "thesis.txt").unlink()
    remove_checkpoints(folder)
    assert not folder.exists()
    remove_checkpoints(folder)


def test_checkpoint_of_another_job_is_refused(saved: tuple[Job, Path]) -> None:
    job, folder = saved
    with pytest.raises(CheckpointError, match="another run"):
        read_checkpoint(folder, replace(job, prompt="a cube"))
    finer = replace(job, config=quick_config("mesh.resolution=48", "run.checkpoint_interval=3"))
    assert read_checkpoint(folder, finer).state.step == 6


def test_empty_folder_has_nothing_to_resume(tmp_path: Path) -> None:
    assert not has_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        read_checkpoint(tmp_path, make_job("a ball", "oracle", "draft", quick_config()))
