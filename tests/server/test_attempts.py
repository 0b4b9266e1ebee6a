# SPDX-License-Identifier: GPL-3.0-or-later
"""Several attempts of one job: only the newest may report, deaths are counted, turn and checkpoint are kept."""

from __future__ import annotations

from dreamwright.backend.server.workers.dispatcher import RETRY_S
from dreamwright.backend.server.workers.fencing import FENCE_FILE
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.local_runner import WorkerExited
from dreamwright.backend.server.workers.worker_protocol import JobFinished, ProgressReport, StatusReport
from tests.testing.in_memory_server import InMemoryServer


def test_fence_is_raised_before_the_job_is_assigned(in_memory_server: InMemoryServer) -> None:
    name = in_memory_server.submit()
    in_memory_server.step()
    assert (in_memory_server.store.job_folder(name) / FENCE_FILE).read_text() == "1\n"


def test_reports_of_earlier_attempts_are_ignored(in_memory_server: InMemoryServer) -> None:
    name = in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.runner.queued.append(WorkerExited(name, -9))
    in_memory_server.step()
    assert in_memory_server.job(name).attempt == 2 and in_memory_server.job(name).state == "running"
    for late in (
        ProgressReport(name, 9, 10, 1.0, 1.0, 1),
        StatusReport(name, "", "late", 1),
        JobFinished(name, "succeeded", "", False, 1),
        JobFinished(name, "failed", "", False),
    ):
        before = in_memory_server.job(name)
        in_memory_server.runner.queued.append(late)
        for _ in list(in_memory_server.runner.at_work):
            in_memory_server.service.dispatcher.handle_report(in_memory_server.runner.queued.pop())
        assert in_memory_server.job(name) == before


def test_progress_resets_the_failure_count(in_memory_server: InMemoryServer) -> None:
    name = in_memory_server.submit()
    in_memory_server.step()
    steps = in_memory_server.job(name).steps
    for death in range(1, 6):
        in_memory_server.report(ProgressReport, name, death * steps // 10, steps, 1.0, 1.0)
        in_memory_server.runner.queued.append(WorkerExited(name, -9))
        in_memory_server.step()
        assert in_memory_server.job(name).state == "running"
    for _ in range(2):
        in_memory_server.runner.queued.append(WorkerExited(name, -9))
        in_memory_server.step()
    assert in_memory_server.job(name).state == "failed" and "3 times" in in_memory_server.job(name).message


def test_third_death_at_the_same_step_fails_the_job(in_memory_server: InMemoryServer) -> None:
    name = in_memory_server.submit()
    in_memory_server.step()
    for death in (1, 2, 3):
        assert in_memory_server.job(name).state == "running" and in_memory_server.job(name).attempt == death
        in_memory_server.report(
            ProgressReport, name, in_memory_server.job(name).steps // 2, in_memory_server.job(name).steps, 1.0, 1.0
        )
        in_memory_server.runner.queued.append(WorkerExited(name, -11))
        in_memory_server.step()
    assert in_memory_server.job(name).state == "failed" and in_memory_server.job(name).cause == "crashed"


def test_worker_death_is_counted_once_it_is_stored(in_memory_server: InMemoryServer) -> None:
    name = in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.disk.full = True
    in_memory_server.runner.queued.append(WorkerExited(name, -9))
    in_memory_server.step()
    assert in_memory_server.job(name).state == "running"
    in_memory_server.disk.full = False
    in_memory_server.step(RETRY_S)
    assert in_memory_server.store.records[name].attempts == 1 and in_memory_server.job(name).attempt == 2


def test_turns_and_interrupted_jobs_survive_a_kill(in_memory_server: InMemoryServer) -> None:
    mine = [in_memory_server.submit("ada") for _ in range(3)]
    in_memory_server.step()
    in_memory_server.finish(mine[0])
    assert in_memory_server.runner.given == mine[:2]
    other = in_memory_server.submit("bob")
    in_memory_server.kill()
    in_memory_server.open()
    assert in_memory_server.job(mine[1]).state == "queued" and in_memory_server.job(mine[1]).queue_position == 1, (
        "it had its turn and keeps it"
    )
    assert in_memory_server.job(other).queue_position == 2, "bob was not served yet, ada was"
    in_memory_server.step()
    assert in_memory_server.runner.given == [mine[1]] and in_memory_server.job(mine[1]).attempt == 2


def test_checkpoint_is_kept_until_the_result_is_stored(in_memory_server: InMemoryServer) -> None:
    name = in_memory_server.submit()
    in_memory_server.step()
    checkpoints = in_memory_server.store.job_folder(name) / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "checkpoint.safetensors").write_bytes(b"x")
    in_memory_server.disk.full = True
    (in_memory_server.store.job_folder(name) / MESH_FILE).write_bytes(b"mesh")
    in_memory_server.report(JobFinished, name, "succeeded", "", True)
    assert in_memory_server.job(name).state == "running" and checkpoints.exists()
    in_memory_server.disk.full = False
    in_memory_server.step(RETRY_S)
    assert (
        in_memory_server.job(name).state == "succeeded"
        and in_memory_server.job(name).mesh_bytes == 4
        and not checkpoints.exists()
    )
