# SPDX-License-Identifier: GPL-3.0-or-later
"""A failed job that left a checkpoint goes on from it when asked; one that left none is submitted anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dreamwright.backend.server.policy import GIGABYTE, Policy
from dreamwright.backend.server.workers.local_runner import Died
from dreamwright.backend.server.workers.worker_protocol import Ended, Stepped
from dreamwright.shared.messages import Cancel, Forget, Pause, Resume
from tests.testing.in_memory_server import Yard, yard  # noqa: F401 (fixture)


def failed(yard: Yard, cause: str = "fault", size: int = 10, owner: str = "ada") -> str:
    """A job that failed, with a checkpoint of so many bytes (0: none)."""
    name = yard.submit(owner)
    yard.work()
    if size:
        checkpoints = yard.ledger.job_folder(name) / "checkpoints"
        checkpoints.mkdir()
        (checkpoints / "checkpoint.safetensors").write_bytes(b"x" * size)
    yard.hands.told.append(Ended(name, "failed", "it broke", False, yard.job(name).attempt, cause))
    yard.work()
    assert yard.job(name).state == "failed"
    return name


def test_it_goes_on_from_its_checkpoint_with_all_its_attempts_before_it(yard: Yard) -> None:
    name = failed(yard)
    job = yard.job(name)
    assert (job.resumable, job.cause, job.message) == (True, "fault", "it broke")
    assert (yard.ledger.job_folder(name) / "checkpoints" / "checkpoint.safetensors").exists()
    job = yard.ask(Resume(name)).job
    assert (job.state, job.message, job.cause, job.resumable) == ("queued", "", "", False)
    yard.work()
    assert yard.hands.given == [name, name] and yard.job(name).attempt == 2
    for _ in range(2):
        yard.hands.told.append(Died(name, -9))
        yard.work()
    assert yard.job(name).state == "running", "deaths are counted anew"
    yard.finish(name)
    assert not (yard.ledger.job_folder(name) / "checkpoints").exists(), "nothing goes on from it any more"


def test_three_deaths_leave_the_checkpoint_too(yard: Yard) -> None:
    name = yard.submit()
    yard.work()
    checkpoints = yard.ledger.job_folder(name) / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "checkpoint.previous.safetensors").write_bytes(b"x")
    for _ in range(3):
        yard.hands.told.append(Died(name, -11))
        yard.work()
    assert (
        yard.job(name).state == "failed"
        and yard.job(name).resumable
        and "SIGSEGV, 3 times" not in yard.job(name).message
    )
    assert "crashed (SIGSEGV), 3 times" in yard.job(name).message


def test_without_a_checkpoint_it_is_refused_in_words(yard: Yard) -> None:
    none = failed(yard, size=0)
    assert not yard.job(none).resumable
    assert "failed ones with a checkpoint" in yard.refused(Resume(none)).message
    gone = failed(yard)
    shutil.rmtree(yard.ledger.job_folder(gone) / "checkpoints")
    assert yard.refused(Resume(gone)).code == "not-now"
    done = yard.submit()
    yard.work()
    yard.finish(done)
    assert yard.refused(Resume(done)).code == "not-now"


def test_it_takes_a_new_turn_and_room_among_the_open_jobs(tmp_path: Path) -> None:
    yard = Yard(tmp_path / "state", policy=Policy(jobs_per_user=2))
    name = failed(yard)
    yard.submit()
    yard.submit()
    refusal = yard.refused(Resume(name))
    assert refusal.code == "too-many" and yard.job(name).state == "failed" and yard.job(name).resumable
    yard.work()
    other = yard.submit("bob")
    for held in list(yard.ledger.entries):
        if yard.job(held).state == "queued" and yard.ledger.entries[held].owner == "ada":
            yard.ask(Cancel(held))
    assert yard.ask(Resume(name)).job.queue_place == 2 and yard.job(other).queue_place == 1, (
        "bob was not served yet, ada was"
    )


def test_it_survives_a_restart_of_the_server(yard: Yard) -> None:
    name = failed(yard)
    yard.kill()
    yard.open()
    assert yard.job(name).resumable and yard.ask(Resume(name)).job.state == "queued"


def test_its_checkpoint_counts_among_what_is_kept_and_goes_with_the_job(tmp_path: Path) -> None:
    yard = Yard(tmp_path / "state", policy=Policy(keep_gb=1.0))
    small, large = failed(yard, size=1000), failed(yard, size=1)
    with (yard.ledger.job_folder(large) / "checkpoints" / "checkpoint.safetensors").open("r+b") as file:
        file.truncate(int(1.5 * GIGABYTE))  # sparse: takes no room
    folders = {name: yard.ledger.job_folder(name) for name in (small, large)}
    yard.work(61.0)
    yard.work(61.0)
    assert set(yard.ledger.entries) == set(), "the oldest first, until the rest fits"
    assert not any(folder.exists() for folder in folders.values())
    kept = failed(yard, size=1000)
    yard.work(61.0)
    assert yard.job(kept).resumable
    yard.ask(Forget(kept))
    assert not (tmp_path / "state" / "jobs" / kept).exists()


def test_a_job_that_is_cancelled_while_it_waits_leaves_no_checkpoint_and_says_that_there_is_no_mesh(yard: Yard) -> None:
    yard.submit()
    name = yard.submit()
    checkpoints = yard.ledger.job_folder(name) / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "checkpoint.safetensors").write_bytes(b"x")
    yard.ask(Pause(name))
    job = yard.ask(Cancel(name)).job
    assert job.state == "cancelled" and "no mesh" in job.message and not checkpoints.exists()


def test_a_failure_that_the_disk_refuses_to_write_down_is_counted_once_it_takes_it(yard: Yard) -> None:
    name = yard.submit()
    yard.work()
    yard.report(Stepped, name, 200, 400, 1.0, 1.0)
    yard.hands.told.append(Died(name, -9))
    yard.work()
    yard.report(Stepped, name, 300, 400, 1.0, 1.0)
    yard.disk.full = True
    yard.hands.told.append(Died(name, -9))
    yard.work()
    yard.disk.full = False
    yard.work(3.0)
    assert yard.ledger.entries[name].attempts == 1, "it got on, and a write that is made again does not take that back"


@pytest.mark.parametrize("cause", ["memory", "not-a-number", "bad-input", "fault", "run-failed"])
def test_what_would_only_come_again_is_not_tried_again_by_itself(cause: str, yard: Yard) -> None:
    name = failed(yard, cause)
    assert yard.job(name).attempt == 1 and yard.hands.given == [name]
