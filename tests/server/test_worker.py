# SPDX-License-Identifier: GPL-3.0-or-later
"""Attempts with damaged checkpoints, a full disk, or a fence raised by a later attempt."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from dreamwright.backend.server.jobs.preview_file import read_preview
from dreamwright.backend.server.workers.fencing import raise_fence
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.worker_protocol import PreviewReport, ProgressReport, StatusReport, Stop
from dreamwright.backend.training.checkpoints import FORMAT, NEWEST, PREVIOUS, VERSION
from tests.testing.preloaded import run_in_child
from tests.testing.recording_worker import SETTINGS, RecordingWorker, job_order, run_attempt, run_until_rename
from tests.testing.tiny_clip import write_clip

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("report_every_step")


@pytest.fixture(scope="module")
def reference(model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The mesh of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("reference")
    assert run_attempt(model, folder, 1).ended.how == "succeeded"
    return (folder / MESH_FILE).read_bytes()


@pytest.fixture
def started(report_every_step: None, model: Path, tmp_path: Path) -> Path:
    """A job folder whose first attempt was stopped after step 5, so with checkpoints of step 4 and 5."""
    worker = RecordingWorker()
    worker.stop_at = 5
    assert run_attempt(model, tmp_path, 1, worker).ended.how == "paused"
    assert (tmp_path / "checkpoints" / PREVIOUS).is_file() and worker.steps()[-1] == 5
    return tmp_path


def test_paused_job_resumes_to_the_same_mesh(started: Path, model: Path, reference: bytes) -> None:
    worker = run_attempt(model, started, 2)
    assert worker.ended.how == "succeeded" and worker.steps()[0] == 6
    assert (started / MESH_FILE).read_bytes() == reference
    assert (started / "checkpoints" / NEWEST).is_file(), "the server removes it, once it has written down the end"
    assert all(word.attempt == 2 for word in worker.sent)


def test_memory_and_time_are_reported_before_the_first_step_and_not_after_the_last(model: Path, tmp_path: Path) -> None:
    worker, settings = RecordingWorker(), {**SETTINGS, "run.steps": "20"}
    worker.stop_at = 1
    raise_fence(tmp_path, 1)
    worker.run(replace(job_order(model, tmp_path, 1), settings=settings))
    first = next(place for place, report in enumerate(worker.sent) if isinstance(report, ProgressReport))
    said = [report.message for report in worker.sent[:first] if isinstance(report, StatusReport)][-1]
    assert re.fullmatch(r"memory: about \S+ .B of \S+ .B free on cpu; time: .* for 20 steps", said), said
    assert "memory:" not in worker.ended.message


def test_newest_preview_stays_in_the_folder(model: Path, tmp_path: Path) -> None:
    worker = RecordingWorker()
    worker.stop_at = 5
    run_attempt(model, tmp_path, 1, worker)
    shown = [report.frame for report in worker.sent if isinstance(report, PreviewReport)]
    assert shown and read_preview(tmp_path) == shown[-1]


def test_clip_mesh_job_runs_resumes_and_keeps_no_field(tmp_path: Path) -> None:
    """A scene without a field runs as any other; only a field can be what another job starts from."""
    clip = write_clip(tmp_path / "clip")
    settings = {
        "run.steps": 4,
        "run.checkpoint_interval": 1,
        "run.preview_interval": 2,
        "run.threads": 1,
        "render.resolution": 24,
        "refine.supersampling": 1,
        "clip.crops": 2,
        "sphere.subdivisions": 1,
    }

    def attempt(folder: Path, number: int, stop_at: int = 10**9) -> RecordingWorker:
        worker = RecordingWorker()
        worker.stop_at = stop_at
        raise_fence(folder, number)
        worker.run(replace(job_order(clip, folder, number), preset="clip-mesh", settings=settings))
        return worker

    assert attempt(tmp_path / "whole", 1).ended.how == "succeeded"
    assert attempt(tmp_path / "broken", 1, stop_at=2).ended.how == "paused"
    worker = attempt(tmp_path / "broken", 2)
    assert worker.ended.how == "succeeded" and worker.steps() == [3, 4], worker.ended
    whole, broken = ((tmp_path / name / MESH_FILE).read_bytes() for name in ("whole", "broken"))
    assert whole == broken and not list(tmp_path.glob("*/field*"))


@pytest.mark.parametrize("stopped", [None, "cancel", "pause"])
def test_texture_is_baked_unless_cancelled(model: Path, tmp_path: Path, reference: bytes, stopped: str | None) -> None:
    from dreamwright.shared.mesh_file import decode_mesh

    class Hasty(RecordingWorker):
        def _requested_stop(self) -> str:
            if stopped and "making the mesh" in self.notes():
                self._stop = Stop("job", stopped)
            return self._stop.mode if self._stop is not None else ""

    worker = Hasty()
    raise_fence(tmp_path, 1)
    work = job_order(model, tmp_path, 1)
    worker.run(replace(work, settings={**SETTINGS, "mesh.texture": "64"}))
    assert worker.ended.how == "succeeded" and worker.ended.meshed, worker.ended
    data = (tmp_path / MESH_FILE).read_bytes()
    if stopped == "cancel":
        assert "vertex colors" in worker.ended.message
        assert data == reference
    else:
        mesh, plain = decode_mesh(data), decode_mesh(reference)
        assert "vertex colors" not in worker.ended.message and "baking the texture, 100 %" in worker.notes()
        assert mesh.texture is not None and len(mesh.texture.corners) == len(mesh.faces)
        assert (mesh.vertices == plain.vertices).all() and (mesh.faces == plain.faces).all(), (
            "the mesh itself is the same"
        )


def test_unreported_mesh_is_made_again(started: Path, model: Path, reference: bytes) -> None:
    run_attempt(model, started, 2)
    (started / MESH_FILE).unlink()
    worker = run_attempt(model, started, 3)
    assert worker.ended.how == "succeeded" and worker.steps() == [] and (started / MESH_FILE).read_bytes() == reference


@pytest.mark.parametrize("harm", ["truncated", "flipped", "newer"])
def test_previous_checkpoint_is_used_and_reported(harm: str, started: Path, model: Path, reference: bytes) -> None:
    newest = started / "checkpoints" / NEWEST
    data = newest.read_bytes()
    if harm == "truncated":
        newest.write_bytes(data[: len(data) // 2])
    elif harm == "flipped":
        newest.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])
    else:
        save_file({"a": torch.zeros(2)}, newest, metadata={"format": FORMAT, "version": str(VERSION + 1)})
    worker = run_attempt(model, started, 2)
    word = "update dreamwright" if harm == "newer" else "damaged"
    assert word in worker.notes() and "went back to the one before, step 4" in worker.ended.message
    assert worker.steps()[0] == 5 and worker.ended.how == "succeeded"
    assert (started / MESH_FILE).read_bytes() == reference


def test_job_restarts_without_a_usable_checkpoint(started: Path, model: Path, reference: bytes) -> None:
    for name in (NEWEST, PREVIOUS):
        (started / "checkpoints" / name).write_bytes(b"nothing")
    worker = run_attempt(model, started, 2)
    assert (
        worker.steps()[0] == 1
        and "began anew" in worker.ended.message
        and (started / MESH_FILE).read_bytes() == reference
    )


def test_checkpoint_of_other_settings_is_ignored(started: Path, model: Path, reference: bytes) -> None:
    work = job_order(model, started, 2)
    raise_fence(started, 2)
    worker = RecordingWorker()
    worker.run(replace(work, prompt="a blue mushroom"))
    assert worker.steps()[0] == 1 and "began anew" in worker.ended.message


def test_checkpoint_of_a_model_with_other_contents_is_ignored(model: Path, tmp_path: Path) -> None:
    """The model's folder and name are the same; a checkpoint belongs to the bytes that it was made with."""
    own, folder = Path(shutil.copytree(model, tmp_path / "model")), tmp_path / "job"
    folder.mkdir()
    first = RecordingWorker()
    first.stop_at = 5
    assert run_attempt(own, folder, 1, first).ended.how == "paused"
    index = own / "model_index.json"
    index.write_text(index.read_text() + "\n")
    worker = run_attempt(own, folder, 2)
    assert worker.steps()[0] == 1 and "began anew" in worker.ended.message


def no_space(*_: Any, **__: Any) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_full_disk_at_a_checkpoint_pauses_the_job(
    started: Path, model: Path, reference: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (started / "checkpoints" / NEWEST).read_bytes()
    with monkeypatch.context() as full:
        full.setattr("dreamwright.backend.scenes.state_file.save_file", no_space)
        worker = run_attempt(model, started, 2)
    assert (
        worker.ended.how == "paused"
        and "No space left" in worker.ended.message
        and "make room there, then resume" in worker.ended.message
    )
    assert (started / "checkpoints" / NEWEST).read_bytes() == before
    assert run_attempt(model, started, 3).ended.how == "succeeded" and (started / MESH_FILE).read_bytes() == reference


def test_full_disk_at_the_mesh_pauses_the_job(
    started: Path, model: Path, reference: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    raise_fence(started, 2)
    worker = RecordingWorker()
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", full_disk)
        worker.run(job_order(model, started, 2))
    assert worker.ended.how == "paused" and "cannot write the mesh" in worker.ended.message
    assert not list(started.glob("mesh.dwm*"))
    assert run_attempt(model, started, 3).ended.how == "succeeded" and (started / MESH_FILE).read_bytes() == reference


def test_superseded_worker_writes_nothing(model: Path, tmp_path: Path) -> None:
    class Late(RecordingWorker):
        def send(self, message: object) -> None:
            super().send(message)
            if isinstance(message, ProgressReport) and message.step == 3:
                raise_fence(tmp_path, 2)

    worker = run_attempt(model, tmp_path, 1, Late())
    assert worker.ended.how == "failed" and "given to attempt 2" in worker.ended.message and worker.ended.attempt == 1
    with (tmp_path / "checkpoints" / NEWEST).open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        assert json.loads(json.loads(file.read(size))["__metadata__"]["run"])["step"] == 2
    assert not (tmp_path / MESH_FILE).exists()


@pytest.mark.parametrize(
    ("renamed", "time", "step"),
    [
        (PREVIOUS, 1, 2),  # the second checkpoint is whole, but under its temporary name
        (NEWEST, 2, 2),  # the first one is the previous one by now, and there is no newest
        (MESH_FILE, 1, 6),  # the mesh is whole, but under its temporary name
    ],
)
def test_sigkill_before_rename_loses_one_interval_at_most(
    renamed: str, time: int, step: int, model: Path, tmp_path: Path, reference: bytes
) -> None:
    """A process that SIGKILLs itself just before that rename; from outside such a moment is too short to hit."""
    assert run_in_child(run_until_rename, model, tmp_path, renamed, time) == -signal.SIGKILL
    assert list(tmp_path.glob("**/*.part")), "it was written, and not yet renamed"
    worker = run_attempt(model, tmp_path, 2)
    assert worker.ended.how == "succeeded" and (worker.steps() or [7])[0] == step + 1
    assert (tmp_path / MESH_FILE).read_bytes() == reference


def test_partial_checkpoints_are_never_read(started: Path, model: Path, reference: bytes) -> None:
    (started / "checkpoints" / f"{NEWEST}.part").write_bytes((started / "checkpoints" / NEWEST).read_bytes()[:3000])
    worker = run_attempt(model, started, 2)
    assert (
        worker.steps()[0] == 6 and worker.ended.how == "succeeded" and (started / MESH_FILE).read_bytes() == reference
    )
