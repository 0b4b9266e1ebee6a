# SPDX-License-Identifier: GPL-3.0-or-later
"""A job that starts from the field of another job: what is refused, and that it is created once and durably."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from dreamwright.backend.scenes.initial_field import FIELD_FILE
from dreamwright.backend.server.jobs import durable_files
from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.workers.dispatcher import CLEANUP_INTERVAL_S
from dreamwright.backend.server.workers.job_executor import INITIAL_FIELD_FILE
from dreamwright.backend.server.workers.worker_protocol import JobFinished
from dreamwright.shared.messages import CancelJob, DeleteJob, GetCapabilities, SubmitJob
from tests.testing.in_memory_server import InMemoryServer

FIELD = b"a field of some bytes"


def finished(in_memory_server: InMemoryServer, field: bytes = FIELD, **changes: Any) -> str:
    """A job that has ended with a mesh and its field."""
    name = in_memory_server.submit(**changes)
    in_memory_server.step()
    (in_memory_server.store.job_folder(name) / FIELD_FILE).write_bytes(field)
    in_memory_server.finish(name)
    return name


def finetuning(origin: str, **changes: Any) -> SubmitJob:
    fields = {
        "ticket": "refined",
        "prompt": "a blue mushroom",
        "negative": "",
        "model": "starter",
        "preset": "draft",
        "seed": 0,
        "settings": {},
    }
    return SubmitJob(**(fields | {"parent_job": origin} | changes))


def initial_field_of(in_memory_server: InMemoryServer, job: str) -> bytes:
    return (in_memory_server.store.job_folder(job) / INITIAL_FIELD_FILE).read_bytes()


def folders(in_memory_server: InMemoryServer) -> set[str]:
    return {path.name for path in (in_memory_server.folder / "jobs").iterdir()}


# --- results


def test_only_jobs_with_a_field_can_be_finetuned(in_memory_server: InMemoryServer) -> None:
    unfinished = in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.finish(unfinished)
    assert not in_memory_server.job(unfinished).has_field and in_memory_server.job(finished(in_memory_server)).has_field


def test_finetuned_job_starts_from_the_field(in_memory_server: InMemoryServer) -> None:
    origin = finished(in_memory_server)
    settings = {"run.steps": 400, "surface.steps": 20, "run.finetune_share": 0.25}
    job = in_memory_server.request(finetuning(origin, settings=settings)).job
    found = (job.parent_job, job.step, job.steps, job.state)
    assert found == (origin, 100, 420, "queued"), "the share is of the field's steps"
    assert initial_field_of(in_memory_server, job.job) == FIELD
    in_memory_server.step()
    assert in_memory_server.runner.at_work["cpu"].parent_job == origin, "its worker receives the parent"


def test_parent_may_be_deleted_after_submit(in_memory_server: InMemoryServer) -> None:
    origin = finished(in_memory_server)
    name = in_memory_server.request(finetuning(origin)).job.job
    in_memory_server.request(DeleteJob(origin))
    assert not in_memory_server.store.job_folder(origin).exists() and initial_field_of(in_memory_server, name) == FIELD
    assert in_memory_server.request(finetuning(origin)).job.job == name, "nor does the same ticket need it any more"
    in_memory_server.kill()
    in_memory_server.open()
    assert (in_memory_server.job(name).parent_job, initial_field_of(in_memory_server, name)) == (origin, FIELD)
    in_memory_server.step()
    assert in_memory_server.runner.given == [name]


def test_repeated_ticket_makes_one_finetuned_job(in_memory_server: InMemoryServer) -> None:
    origin = finished(in_memory_server)
    names = {in_memory_server.request(finetuning(origin)).job.job for _ in range(3)}
    assert len(names) == 1 and folders(in_memory_server) == names | {origin}


def test_finetuned_jobs_can_be_finetuned(in_memory_server: InMemoryServer) -> None:
    second = in_memory_server.request(finetuning(finished(in_memory_server))).job.job
    in_memory_server.step()
    (in_memory_server.store.job_folder(second) / FIELD_FILE).write_bytes(b"another")
    in_memory_server.finish(second)
    assert (
        initial_field_of(in_memory_server, in_memory_server.request(finetuning(second, ticket="third")).job.job)
        == b"another"
    )


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_field_is_copied_where_links_are_not_supported(
    reason: int, in_memory_server: InMemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(reason, os.strerror(reason))

    origin = finished(in_memory_server)
    monkeypatch.setattr(durable_files.os, "link", refuse)
    own = in_memory_server.store.job_folder(in_memory_server.request(finetuning(origin)).job.job) / INITIAL_FIELD_FILE
    assert own.read_bytes() == FIELD and own.stat().st_nlink == 1


def test_skipped_share_is_a_panel_control(in_memory_server: InMemoryServer) -> None:
    control = next(
        control
        for control in in_memory_server.request(GetCapabilities()).settings
        if control.name == "run.finetune_share"
    )
    assert (control.kind, control.low, control.high, control.defaults["draft"]) == ("number", 0.0, 0.99, 0.5)


# --- refusals


def test_parent_of_another_user_is_unknown(
    in_memory_server: InMemoryServer,
) -> None:
    origin, unknown = finished(in_memory_server), "f" * 16
    foreign, absent = (in_memory_server.refusal(finetuning(name), "bob") for name in (origin, unknown))
    assert foreign.code == absent.code == "no-such-job" and foreign.message.replace(
        origin, "X"
    ) == absent.message.replace(unknown, "X")
    assert folders(in_memory_server) == {origin} and len(in_memory_server.store.records) == 1
    assert in_memory_server.request(finetuning(origin), "admin", admin=True).job.owner == "admin", (
        "an admin sees all jobs"
    )


def test_unfinished_parent_is_refused(in_memory_server: InMemoryServer) -> None:
    for _ in range(2):
        name = in_memory_server.submit()
        in_memory_server.step()
        refused = in_memory_server.refusal(finetuning(name))
        assert (
            refused.code == "not-now"
            and in_memory_server.job(name).state in refused.message
            and "cancel it" in refused.message
        )


def test_parent_without_field_is_refused(
    in_memory_server: InMemoryServer,
) -> None:
    failed = in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.report(JobFinished, failed, "failed", "no luck", False)
    lost = finished(in_memory_server)
    (in_memory_server.store.job_folder(lost) / FIELD_FILE).unlink()
    for name in (failed, lost):
        refused = in_memory_server.refusal(finetuning(name))
        assert (
            refused.code == "not-now"
            and f"job {name} has no field" in refused.message
            and "generate it again" in refused.message
        )
    assert in_memory_server.store.open_jobs() == 0 and folders(in_memory_server) <= {failed, lost}, (
        "nothing of the new job is left"
    )


def test_other_field_kind_is_refused_with_matching_presets(in_memory_server: InMemoryServer) -> None:
    origin = finished(in_memory_server)
    refused = in_memory_server.refusal(finetuning(origin, preset="paper"))
    assert refused.code == "bad-input" and "field.kind is mip-mlp, there voxels" in refused.message
    assert "allowed are the presets draft, standard, fine, dream-fields, without any field setting" in refused.message
    assert in_memory_server.request(finetuning(origin, preset="standard")).job.preset == "standard"


def test_field_with_other_settings_is_refused(in_memory_server: InMemoryServer) -> None:
    origin = finished(in_memory_server, settings={"field.density_scale": 4, "run.steps": 20})
    refused = in_memory_server.refusal(finetuning(origin))
    assert (
        "field.density_scale is 5.0, there 4.0" in refused.message
        and "with field.density_scale=4 and no other field setting" in refused.message
    )
    assert in_memory_server.request(finetuning(origin, settings={"field.density_scale": 4.0})).job.state == "queued", (
        "the same in other words"
    )


# --- crashes and full disks


def test_crash_before_commit_leaves_nothing(in_memory_server: InMemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        """As SIGKILL between the field's new name and the commit: nothing is cleared up."""

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    origin = finished(in_memory_server)
    with monkeypatch.context() as patch:
        patch.setattr(in_memory_server.store, "_write", die)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            in_memory_server.request(finetuning(origin))
    (stray,) = folders(in_memory_server) - {origin}
    assert initial_field_of(in_memory_server, stray) == FIELD, "it was on disk by then"
    in_memory_server.kill()
    in_memory_server.open()
    assert folders(in_memory_server) == {origin} and set(in_memory_server.store.records) == {origin}
    assert initial_field_of(in_memory_server, in_memory_server.request(finetuning(origin)).job.job) == FIELD


@pytest.mark.parametrize("full", ["store", "link", "folder"])
def test_full_disk_refuses_the_finetune_job(
    full: str, in_memory_server: InMemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    origin = finished(in_memory_server)
    with monkeypatch.context() as patch:
        in_memory_server.disk.full = full == "store"
        if full == "link":
            patch.setattr(durable_files.os, "link", refuse)
            patch.setattr(durable_files.shutil, "copyfile", refuse)
        elif full == "folder":
            patch.setattr(Path, "mkdir", refuse)
        refused = in_memory_server.refusal(finetuning(origin))
    assert refused.code == "no-space" and "make room on its disk, then send it again" in refused.message
    assert folders(in_memory_server) == {origin} and set(in_memory_server.store.records) == {origin}
    in_memory_server.disk.full = False
    assert in_memory_server.request(finetuning(origin)).job.state == "queued"


# --- retention


def test_fields_count_for_retention(tmp_path: Path) -> None:
    in_memory_server = InMemoryServer(tmp_path, policy=Policy(keep_gb=0.001))
    first_job = finished(in_memory_server, bytes(700_000))
    in_memory_server.step(CLEANUP_INTERVAL_S)
    assert first_job in in_memory_server.store.records
    second_job = finished(in_memory_server, bytes(700_000))
    in_memory_server.step(2 * CLEANUP_INTERVAL_S)
    assert (
        set(in_memory_server.store.records) == {second_job}
        and not in_memory_server.store.job_folder(first_job).exists()
    ), "1.4 MB are more than one"


def test_initial_field_is_removed_when_the_job_ends(
    in_memory_server: InMemoryServer,
) -> None:
    origin = finished(in_memory_server)
    jobs = {
        what: in_memory_server.request(finetuning(origin, ticket=what)).job.job
        for what in ("succeeds", "is cancelled", "fails", "can go on")
    }
    in_memory_server.request(CancelJob(jobs["is cancelled"]))
    in_memory_server.step()
    in_memory_server.finish(jobs["succeeds"])
    in_memory_server.report(JobFinished, jobs["fails"], "failed", "no luck", False)
    checkpoints = in_memory_server.store.job_folder(jobs["can go on"]) / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "checkpoint.safetensors").write_bytes(b"12")
    in_memory_server.report(JobFinished, jobs["can go on"], "failed", "no luck", False)
    left = {
        what for what, job in jobs.items() if (in_memory_server.store.job_folder(job) / INITIAL_FIELD_FILE).exists()
    }
    assert left == {"can go on"}
    assert in_memory_server.service.cleanup.retained_bytes(
        in_memory_server.store.records[jobs["can go on"]]
    ) == 2 + len(FIELD)
    assert (in_memory_server.store.job_folder(origin) / FIELD_FILE).read_bytes() == FIELD, (
        "the other name of the same file"
    )
