# SPDX-License-Identifier: GPL-3.0-or-later
"""A failed job with a checkpoint can be resumed; one without must be submitted again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from dreamwright.backend.server.policy import GIGABYTE, Policy
from dreamwright.backend.server.workers.local_runner import WorkerExited
from dreamwright.backend.server.workers.worker_protocol import JobFinished, ProgressReport
from dreamwright.shared.messages import CancelJob, DeleteJob, PauseJob, ResumeJob
from tests.testing.in_memory_server import InMemoryServer


def failed(
    in_memory_server: InMemoryServer, cause: str = "fault", size: int = 10, owner: str = "ada", **changes: Any
) -> str:
    """A job that failed, with a checkpoint of so many bytes (0: none). `changes` are fields of its submission."""
    name = in_memory_server.submit(owner, **changes)
    in_memory_server.step()
    if size:
        checkpoints = in_memory_server.store.job_folder(name) / "checkpoints"
        checkpoints.mkdir()
        (checkpoints / "checkpoint.safetensors").write_bytes(b"x" * size)
    in_memory_server.runner.queued.append(
        JobFinished(name, "failed", "it broke", False, in_memory_server.job(name).attempt, cause)
    )
    in_memory_server.step()
    assert in_memory_server.job(name).state == "failed"
    return name


def test_resume_continues_from_the_checkpoint(in_memory_server: InMemoryServer) -> None:
    name = failed(in_memory_server)
    job = in_memory_server.job(name)
    assert (job.resumable, job.cause, job.message) == (True, "fault", "it broke")
    assert (in_memory_server.store.job_folder(name) / "checkpoints" / "checkpoint.safetensors").exists()
    job = in_memory_server.request(ResumeJob(name)).job
    assert (job.state, job.message, job.cause, job.resumable) == ("queued", "", "", False)
    in_memory_server.step()
    assert in_memory_server.runner.given == [name, name] and in_memory_server.job(name).attempt == 2
    for _ in range(2):
        in_memory_server.runner.queued.append(WorkerExited(name, -9))
        in_memory_server.step()
    assert in_memory_server.job(name).state == "running", "deaths are counted anew"
    in_memory_server.finish(name)
    assert not (in_memory_server.store.job_folder(name) / "checkpoints").exists(), "nothing goes on from it any more"


def test_checkpoint_survives_three_deaths(in_memory_server: InMemoryServer) -> None:
    name = in_memory_server.submit()
    in_memory_server.step()
    checkpoints = in_memory_server.store.job_folder(name) / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "checkpoint.previous.safetensors").write_bytes(b"x")
    for _ in range(3):
        in_memory_server.runner.queued.append(WorkerExited(name, -11))
        in_memory_server.step()
    assert (
        in_memory_server.job(name).state == "failed"
        and in_memory_server.job(name).resumable
        and "SIGSEGV, 3 times" not in in_memory_server.job(name).message
    )
    assert "crashed (SIGSEGV), 3 times" in in_memory_server.job(name).message


def test_resume_without_checkpoint_is_refused(in_memory_server: InMemoryServer) -> None:
    none = failed(in_memory_server, size=0)
    assert not in_memory_server.job(none).resumable
    assert "failed ones with a checkpoint" in in_memory_server.refusal(ResumeJob(none)).message
    gone = failed(in_memory_server)
    shutil.rmtree(in_memory_server.store.job_folder(gone) / "checkpoints")
    assert in_memory_server.refusal(ResumeJob(gone)).code == "not-now"
    done = in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.finish(done)
    assert in_memory_server.refusal(ResumeJob(done)).code == "not-now"


def test_resume_takes_a_new_turn_and_quota(tmp_path: Path) -> None:
    in_memory_server = InMemoryServer(tmp_path / "state", policy=Policy(jobs_per_user=2))
    name = failed(in_memory_server)
    in_memory_server.submit()
    in_memory_server.submit()
    refusal = in_memory_server.refusal(ResumeJob(name))
    assert (
        refusal.code == "too-many"
        and in_memory_server.job(name).state == "failed"
        and in_memory_server.job(name).resumable
    )
    in_memory_server.step()
    other = in_memory_server.submit("bob")
    for held in list(in_memory_server.store.records):
        if in_memory_server.job(held).state == "queued" and in_memory_server.store.records[held].owner == "ada":
            in_memory_server.request(CancelJob(held))
    assert (
        in_memory_server.request(ResumeJob(name)).job.queue_position == 2
        and in_memory_server.job(other).queue_position == 1
    ), "bob was not served yet, ada was"


def test_resumed_job_survives_a_server_restart(in_memory_server: InMemoryServer) -> None:
    name = failed(in_memory_server)
    in_memory_server.kill()
    in_memory_server.open()
    assert in_memory_server.job(name).resumable and in_memory_server.request(ResumeJob(name)).job.state == "queued"


def test_checkpoint_counts_for_retention(tmp_path: Path) -> None:
    in_memory_server = InMemoryServer(tmp_path / "state", policy=Policy(keep_gb=1.0))
    small, large = failed(in_memory_server, size=1000), failed(in_memory_server, size=1)
    with (in_memory_server.store.job_folder(large) / "checkpoints" / "checkpoint.safetensors").open("r+b") as file:
        file.truncate(int(1.5 * GIGABYTE))  # sparse: takes no room
    folders = {name: in_memory_server.store.job_folder(name) for name in (small, large)}
    in_memory_server.step(61.0)
    in_memory_server.step(61.0)
    assert set(in_memory_server.store.records) == set(), "the oldest first, until the rest fits"
    assert not any(folder.exists() for folder in folders.values())
    kept = failed(in_memory_server, size=1000)
    in_memory_server.step(61.0)
    assert in_memory_server.job(kept).resumable
    in_memory_server.request(DeleteJob(kept))
    assert not (tmp_path / "state" / "jobs" / kept).exists()


def test_cancel_while_queued_removes_the_checkpoint(
    in_memory_server: InMemoryServer,
) -> None:
    in_memory_server.submit()
    name = in_memory_server.submit()
    checkpoints = in_memory_server.store.job_folder(name) / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "checkpoint.safetensors").write_bytes(b"x")
    in_memory_server.request(PauseJob(name))
    job = in_memory_server.request(CancelJob(name)).job
    assert job.state == "cancelled" and "no mesh" in job.message and not checkpoints.exists()


def test_failure_is_counted_once_it_is_stored(
    in_memory_server: InMemoryServer,
) -> None:
    name = in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.report(ProgressReport, name, 200, 400, 1.0, 1.0)
    in_memory_server.runner.queued.append(WorkerExited(name, -9))
    in_memory_server.step()
    in_memory_server.report(ProgressReport, name, 300, 400, 1.0, 1.0)
    in_memory_server.disk.full = True
    in_memory_server.runner.queued.append(WorkerExited(name, -9))
    in_memory_server.step()
    in_memory_server.disk.full = False
    in_memory_server.step(3.0)
    assert in_memory_server.store.records[name].attempts == 1, (
        "it got on, and a write that is made again does not take that back"
    )


@pytest.mark.parametrize("cause", ["memory", "not-a-number", "bad-input", "fault", "run-failed"])
def test_deterministic_failures_are_not_retried(cause: str, in_memory_server: InMemoryServer) -> None:
    # Of several views a step, one that runs out of memory is tried again with fewer at once.
    name = failed(in_memory_server, cause, settings={"run.views_per_step": "1"})
    assert in_memory_server.job(name).attempt == 1 and in_memory_server.runner.given == [name]
