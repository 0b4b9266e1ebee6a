# SPDX-License-Identifier: GPL-3.0-or-later
"""The states of a job on the server: submitted once, queued, running, paused, cancelled, deleted."""

from __future__ import annotations

from typing import Any

from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.worker_protocol import JobFinished, PreviewReport, ProgressReport, StatusReport
from dreamwright.shared.messages import CancelJob, DeleteJob, JobChanged, JobDeleted, PauseJob, PreviewFrame, ResumeJob
from dreamwright.shared.transfer import Download
from tests.testing.scripted_worker_server import submit_message


def test_job_runs_previews_and_delivers_its_mesh(scripted_server):
    scripted_server.client.subscribe()
    reply = scripted_server.request(submit_message())
    name = reply.job.job
    scripted_server.wait_until(lambda: scripted_server.runner.given == [name])
    assert scripted_server.job(name).state == "running"
    scripted_server.client.subscribe(name)
    scripted_server.step()
    scripted_server.runner.queued = [
        ProgressReport(name, 5, 10, 1.0, 1.0),
        StatusReport(name, "fine", ""),
        PreviewReport(PreviewFrame(name, 5, 2, 1, b"123456")),
    ]
    scripted_server.wait_until(lambda: any(isinstance(e, PreviewFrame) for e in scripted_server.events))
    scripted_server.wait_until(
        lambda: any(isinstance(e, JobChanged) and e.job.step == 5 for e in scripted_server.events)
    )
    data = bytes(range(256)) * 4000  # four pieces
    (scripted_server.server.store.job_folder(name) / MESH_FILE).write_bytes(data)
    scripted_server.runner.queued = [JobFinished(name, "succeeded", "", True)]
    scripted_server.wait_until(lambda: scripted_server.job(name).state == "succeeded")
    arrived: list[Any] = []
    Download(scripted_server.client, name, "mesh", scripted_server.job(name).mesh_bytes, arrived.append).start()
    scripted_server.wait_until(lambda: bool(arrived))
    assert arrived == [data]


def test_repeated_ticket_makes_one_job(scripted_server):
    first, second, other = (
        scripted_server.request(submit_message("a")),
        scripted_server.request(submit_message("a")),
        scripted_server.request(submit_message("b")),
    )
    assert first.job.job == second.job.job != other.job.job
    assert len(scripted_server.server.store.records) == 2


def test_one_job_per_device_and_queue_positions(scripted_server):
    names = [scripted_server.request(submit_message(f"t{i}")).job.job for i in range(3)]
    scripted_server.wait_until(lambda: scripted_server.runner.given == names[:1])
    assert [scripted_server.job(n).queue_position for n in names] == [0, 1, 2]
    scripted_server.runner.queued = [JobFinished(names[0], "failed", "no luck", False)]
    scripted_server.wait_until(lambda: scripted_server.runner.given == names[:2])
    assert [(scripted_server.job(n).state, scripted_server.job(n).queue_position) for n in names] == [
        ("failed", 0),
        ("running", 0),
        ("queued", 1),
    ]
    assert scripted_server.job(names[0]).message == "no luck"


def test_cancel_queued_and_running_jobs(scripted_server):
    running, waiting = (
        scripted_server.request(submit_message("a")).job.job,
        scripted_server.request(submit_message("b")).job.job,
    )
    scripted_server.wait_until(lambda: scripted_server.runner.given == [running])
    assert scripted_server.request(CancelJob(waiting)).job.state == "cancelled"
    assert scripted_server.request(CancelJob(running)).job.state == "cancelling"
    assert scripted_server.request(CancelJob(running)).job.state == "cancelling"  # twice is once
    assert scripted_server.runner.stopped == [(running, "cancel")]
    (scripted_server.server.store.job_folder(running) / MESH_FILE).write_bytes(b"half")
    scripted_server.runner.queued = [JobFinished(running, "cancelled", "", True)]
    scripted_server.wait_until(lambda: scripted_server.job(running).state == "cancelled")
    assert scripted_server.job(running).mesh_bytes == 4
    assert scripted_server.request(CancelJob(running)).job.state == "cancelled"  # after the end: no harm


def test_pause_and_resume(scripted_server):
    name = scripted_server.request(submit_message()).job.job
    scripted_server.wait_until(lambda: scripted_server.runner.given == [name])
    scripted_server.request(PauseJob(name))
    scripted_server.runner.queued = [JobFinished(name, "paused", "", False)]
    scripted_server.wait_until(lambda: scripted_server.job(name).state == "paused")
    assert scripted_server.request(ResumeJob(name)).job.state in ("queued", "running")
    scripted_server.wait_until(lambda: scripted_server.runner.given == [name, name])


def test_delete_removes_files_of_ended_jobs_only(scripted_server):
    scripted_server.client.subscribe()
    name = scripted_server.request(submit_message()).job.job
    scripted_server.wait_until(lambda: scripted_server.runner.given == [name])
    assert scripted_server.request(DeleteJob(name)).code == "not-now"
    scripted_server.runner.queued = [JobFinished(name, "failed", "", False)]
    scripted_server.wait_until(lambda: scripted_server.job(name).state == "failed")
    scripted_server.request(DeleteJob(name))
    scripted_server.wait_until(lambda: any(isinstance(e, JobDeleted) for e in scripted_server.events))
    assert not scripted_server.server.store.job_folder(name).exists()
    assert scripted_server.request(DeleteJob(name)).code == "no-such-job"
