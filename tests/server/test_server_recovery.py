# SPDX-License-Identifier: GPL-3.0-or-later
"""No job is lost when a worker dies, the server restarts, or another server opens the same folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from dreamwright.backend.errors import CheckpointError, ConfigError
from dreamwright.backend.server.app import Server
from dreamwright.backend.server.jobs.job_store import JobStore
from dreamwright.backend.server.workers import local_runner
from dreamwright.shared.client import Client
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.job_states import JobState
from dreamwright.shared.mesh_file import decode_mesh
from dreamwright.shared.messages import CancelJob, JobReply, PauseJob, ResumeJob
from dreamwright.shared.transfer import Download
from tests.testing.scripted_worker_server import submit_message


def test_job_survives_two_worker_deaths(scripted_server):
    name = scripted_server.request(submit_message()).job.job
    for times in (1, 2, 3):
        scripted_server.wait_until(lambda: len(scripted_server.runner.given) == times)
        scripted_server.runner.queued = [local_runner.WorkerExited(name, -9)]
        scripted_server.wait_until(
            lambda: scripted_server.job(name).state != "running" or len(scripted_server.runner.given) > times
        )
    scripted_server.wait_until(lambda: scripted_server.job(name).state == "failed")
    assert (
        scripted_server.job(name).cause == "killed"
        and "SIGKILL" in scripted_server.job(name).message
        and "3 times" in scripted_server.job(name).message
    )


def test_jobs_survive_a_server_restart(scripted_server):
    running, waiting, done = (scripted_server.request(submit_message(t)).job.job for t in "abc")
    scripted_server.wait_until(lambda: scripted_server.runner.given == [running])
    scripted_server.request(CancelJob(done))
    before = scripted_server.job(running).changed
    scripted_server.close()
    scripted_server.open()
    assert scripted_server.job(done).state == "cancelled"
    scripted_server.wait_until(lambda: scripted_server.runner.given == [running])
    assert scripted_server.job(waiting).queue_position == 1
    assert scripted_server.job(running).changed > before  # or a client that saw the old state would ignore the new one


def test_state_folder_has_one_server(scripted_server):
    with pytest.raises(ConfigError, match="another server uses"):
        Server("tcp://127.0.0.1:*", scripted_server.folder, ("cpu",))


def test_store_of_a_newer_version_is_left_unchanged(tmp_path):
    store = JobStore(tmp_path)
    store._db.execute("PRAGMA user_version=99")
    store.close()
    with pytest.raises(CheckpointError, match="newer Dreamwright"):
        JobStore(tmp_path)


@pytest.mark.slow
def test_real_worker_pauses_resumes_dies_and_finishes(tmp_path):
    """Through a real process and the starter model: pause, resume, SIGKILL of the worker, and a cancel that keeps a
    mesh.
    """
    server = Server("tcp://127.0.0.1:*", tmp_path / "state", ("cpu",))
    client = Client(server.address)
    client.connect()
    answers: list[Any] = []
    settings = {"run.steps": 5000, "run.checkpoint_interval": 2, "run.preview_interval": 2, "render.resolution": 16,
                "render.samples": 16, "mesh.resolution": 32, "run.threads": 1, "mesh.threshold": 1.0}  # fmt: skip

    def until(happened: Callable[[], bool], limit_s: float = 120.0) -> None:
        end = time.monotonic() + limit_s
        while not happened():
            if time.monotonic() > end:
                log = (tmp_path / "state" / "logs" / "worker-cpu.log").read_text()
                raise TimeoutError(f"{[e.summary for e in server.store.records.values()]}\n{log[-2000:]}")
            server.step(0.02)
            client.tick()

    try:
        until(lambda: client.state is ConnectionState.ONLINE)
        client.request(submit_message(settings=settings), answers.append)
        until(lambda: bool(answers))
        assert isinstance(answers[0], JobReply), answers
        name = answers[0].job.job

        def now() -> Any:
            return server.store.records[name].summary

        until(lambda: now().step >= 2)
        client.request(PauseJob(name), answers.append)
        until(lambda: now().state == "paused")
        paused_at = now().step
        client.request(ResumeJob(name), answers.append)
        until(lambda: now().state == "running" and now().step > paused_at)
        assert now().step <= paused_at + 30
        server.runner._workers["cpu"].process.kill()
        until(lambda: server.store.records[name].attempts == 1)
        died_at = now().step
        until(lambda: now().state == "running" and now().step > died_at)
        client.request(CancelJob(name), answers.append)
        until(lambda: now().state == JobState.CANCELLED.value)
        assert now().mesh_bytes, now().message
        fetched: list[Any] = []
        Download(client, name, "mesh", now().mesh_bytes, fetched.append).start()
        until(lambda: bool(fetched))
        mesh = decode_mesh(fetched[0])
        assert len(mesh.faces) and mesh.facts["prompt"] == "a red mushroom"
    finally:
        client.close()
        server.close()
