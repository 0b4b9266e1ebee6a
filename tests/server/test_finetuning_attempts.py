# SPDX-License-Identifier: GPL-3.0-or-later
"""Attempts of a job that starts from another job's field, and the same through a server with a real worker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from dreamwright.backend.errors import CheckpointError
from dreamwright.backend.scenes.initial_field import FIELD_FILE, read_initial_field
from dreamwright.backend.server.jobs.initial_fields import copy_initial_field
from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.requests import job_of
from dreamwright.backend.server.workers.failure_policy import FailureCause
from dreamwright.backend.server.workers.fencing import raise_fence
from dreamwright.backend.server.workers.job_executor import INITIAL_FIELD_FILE, MESH_FILE
from dreamwright.backend.training.checkpoints import read_checkpoint
from dreamwright.backend.training.job import identify_model
from dreamwright.backend.training.pipeline import TextTo3DPipeline
from dreamwright.shared.mesh_file import decode_mesh
from dreamwright.shared.messages import DeleteJob, JobReply, SubmitJob
from tests.soak.fault_injection_server import running_fault_server
from tests.testing.recording_worker import RecordingWorker, job_order, run_attempt

pytestmark = pytest.mark.usefixtures("report_every_step")

NEW = "a blue mushroom"


@pytest.fixture(scope="module")
def origin(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that has ended in a mesh and a field."""
    folder = tmp_path_factory.mktemp("origin")
    assert run_attempt(model, folder, 1).ended.how == "succeeded"
    return folder


@pytest.fixture
def folder(origin: Path, tmp_path: Path) -> Path:
    """The folder of a job that refines it, as the server leaves it for the worker."""
    copy_initial_field(origin, tmp_path / "refined")
    return tmp_path / "refined"


def refine(
    model: Path, folder: Path, number: int, worker: RecordingWorker | None = None, **changes: object
) -> RecordingWorker:
    worker = worker or RecordingWorker()
    raise_fence(folder, number)
    work = job_order(model, folder, number)
    worker.run(replace(work, **({"prompt": NEW, "parent_job": "origin"} | changes)))
    return worker


@pytest.fixture(scope="module")
def reference(origin: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The mesh of a refining that nothing happened to."""
    folder = tmp_path_factory.mktemp("reference") / "refined"
    copy_initial_field(origin, folder)
    assert refine(model, folder, 1).ended.how == "succeeded"
    return (folder / MESH_FILE).read_bytes()


def test_finished_attempt_saves_its_field(origin: Path) -> None:
    kept = read_initial_field(origin)
    last = read_initial_field(origin / "checkpoints")
    assert kept.prompt == "a red mushroom" and kept.tensors.keys() == last.tensors.keys()
    assert all(torch.equal(value, last.tensors[name]) for name, value in kept.tensors.items())
    # A checkpoint has Adam's two moments beside each value: three times the field.
    assert (origin / FIELD_FILE).stat().st_size < 0.5 * (
        origin / "checkpoints" / "checkpoint.safetensors"
    ).stat().st_size


def test_finetuning_starts_from_the_parent_field(folder: Path, model: Path, reference: bytes) -> None:
    """The mesh of a pipeline that starts from that field, to the last bit."""
    worker = refine(model, folder, 1)
    assert worker.steps() == [4, 5, 6] and worker.ended.how == "succeeded"
    assert (folder / MESH_FILE).read_bytes() == reference
    made = decode_mesh(reference)
    assert (made.facts["prompt"], made.facts["finetuned_from"]) == (NEW, "a red mushroom")
    order = replace(job_order(model, folder, 1), prompt=NEW)
    pipeline = TextTo3DPipeline(
        job_of(order), "cpu", None, lambda: False, initial_field=read_initial_field(folder / INITIAL_FIELD_FILE)
    )
    list(pipeline.events())
    mesh, _ = pipeline.mesh()
    assert (made.vertices == mesh.vertices).all() and (made.albedo == mesh.albedo).all()


def test_paused_finetuning_resumes_to_the_same_mesh(folder: Path, model: Path, reference: bytes) -> None:
    worker = RecordingWorker()
    worker.stop_at = 4
    assert refine(model, folder, 1, worker).ended.how == "paused" and worker.steps() == [4]
    order = identify_model(job_of(replace(job_order(model, folder, 1), prompt=NEW)))
    assert (
        read_checkpoint(
            folder / "checkpoints", replace(order, initial_field=read_initial_field(folder / INITIAL_FIELD_FILE).digest)
        ).state.step
        == 4
    )
    with pytest.raises(CheckpointError, match="another run"):
        read_checkpoint(folder / "checkpoints", order)
    again = refine(model, folder, 2)
    assert again.steps() == [5, 6] and "anew" not in again.ended.message
    assert (folder / MESH_FILE).read_bytes() == reference


@pytest.mark.parametrize("harm", ["gone", "flipped"])
def test_damaged_parent_field_fails_the_job(harm: str, folder: Path, model: Path) -> None:
    place = folder / INITIAL_FIELD_FILE
    data = bytearray(place.read_bytes())
    place.unlink()
    if harm == "flipped":
        data[-20] ^= 4
        place.write_bytes(data)
    ended = refine(model, folder, 1).ended
    assert (ended.how, ended.cause) == ("failed", FailureCause.RUN_FAILED.value), "to try it again would be of no use"
    assert (
        "the field of job origin, from which it begins, cannot be read" in ended.message
        and "start from that job again" in ended.message
    )
    assert "--keep-work" not in ended.message


def test_field_of_another_size_fails_the_job(folder: Path, model: Path) -> None:
    settings = {**job_order(model, folder, 1).settings, "field.voxel_resolutions": "4,12"}
    ended = refine(model, folder, 1, settings=settings).ended
    assert ended.how == "failed" and "does not fit this run" in ended.message and "preset" in ended.message


def test_full_disk_for_the_field_keeps_the_mesh(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    (tmp_path / FIELD_FILE).write_bytes(b"of an attempt before")
    monkeypatch.setattr("dreamwright.backend.scenes.initial_field.write_state", full)
    ended = run_attempt(model, tmp_path, 1).ended
    assert ended.how == "succeeded" and ended.meshed and "no other prompt can start from it" in ended.message
    assert (tmp_path / MESH_FILE).is_file() and not list(tmp_path.glob("field*"))


def test_cancelled_job_keeps_its_field(model: Path, tmp_path: Path) -> None:
    class Cancelled(RecordingWorker):
        def _requested_stop(self) -> str:
            return "cancel" if 3 in self.steps() else ""

    ended = run_attempt(model, tmp_path, 1, Cancelled()).ended
    assert ended.how == "cancelled" and ended.meshed
    assert read_initial_field(tmp_path / FIELD_FILE).tensors and read_initial_field(tmp_path / "checkpoints").tensors
    assert decode_mesh((tmp_path / MESH_FILE).read_bytes()).facts["steps"] == 3


def test_superseded_attempt_saves_no_field(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dreamwright.backend.server.workers import job_executor as module

    write = module.JobExecutor._write_mesh

    def then_superseded(self: module.JobExecutor, *arguments: object) -> None:
        write(self, *arguments)
        raise_fence(tmp_path, 2)

    monkeypatch.setattr(module.JobExecutor, "_write_mesh", then_superseded)
    ended = run_attempt(model, tmp_path, 1).ended
    assert ended.how == "failed" and "given to attempt 2" in ended.message and not (tmp_path / FIELD_FILE).exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_real_worker_finetunes_a_deleted_parent(tmp_path: Path) -> None:
    with running_fault_server(tmp_path, Policy()) as fault_server:
        first = fault_server.submit(seed=1)
        ended = fault_server.ended(first)
        assert ended.state == "succeeded" and ended.has_field, ended

        def submit_finetuning(ticket: str, prompt: str, **changes: object) -> SubmitJob:
            return SubmitJob(ticket, prompt, "", str(fault_server.model), "draft", 1, fault_server.settings, **changes)

        replies = [fault_server.request(submit_finetuning(f"r{n}", NEW, parent_job=first)) for n in range(2)]
        assert all(isinstance(reply, JobReply) for reply in replies), replies
        second, third = (reply.job.job for reply in replies)
        fault_server.wait_until(lambda: fault_server.job(second).state == "running")
        fault_server.request(DeleteJob(first))
        done = fault_server.ended(second)
        assert (done.state, done.parent_job, done.has_field, done.step) == ("succeeded", first, True, 12), done
        assert fault_server.attempts(second) == [(1, 6)], "it began in the middle"
        fault_server.ended(third)
        folders = [fault_server.server.store.job_folder(name) for name in (second, third)]
        assert (folders[0] / MESH_FILE).read_bytes() == (folders[1] / MESH_FILE).read_bytes(), (
            "the origin was gone when the other began"
        )
        assert decode_mesh((folders[0] / MESH_FILE).read_bytes()).facts["finetuned_from"] == "a red mushroom"
        assert not any((folder / INITIAL_FIELD_FILE).exists() for folder in folders)
