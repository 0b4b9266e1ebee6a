# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a job on the server: submitted once, in line, at work, paused, cancelled, forgotten."""

from __future__ import annotations

from typing import Any

from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.worker_protocol import Ended, Noted, Pictured, Stepped
from dreamwright.shared.download import Download
from dreamwright.shared.messages import Cancel, Forget, JobChanged, JobForgotten, Pause, PreviewFrame, Resume
from tests.testing.scripted_worker_server import asked, stage  # noqa: F401 (stage is a fixture)


def test_a_submitted_job_runs_shows_itself_and_ends_with_a_mesh_that_arrives_whole(stage):
    stage.client.subscribe()
    reply = stage.ask(asked())
    name = reply.job.job
    stage.until(lambda: stage.foreman.given == [name])
    assert stage.job(name).state == "running"
    stage.client.subscribe(name)
    stage.turn()
    stage.foreman.told = [
        Stepped(name, 5, 10, 1.0, 1.0),
        Noted(name, "fine", ""),
        Pictured(name, 5, 2, 1, b"123456"),
    ]
    stage.until(lambda: any(isinstance(e, PreviewFrame) for e in stage.events))
    stage.until(lambda: any(isinstance(e, JobChanged) and e.job.step == 5 for e in stage.events))
    data = bytes(range(256)) * 4000  # four pieces
    (stage.door._ledger.job_folder(name) / MESH_FILE).write_bytes(data)
    stage.foreman.told = [Ended(name, "succeeded", "", True)]
    stage.until(lambda: stage.job(name).state == "succeeded")
    arrived: list[Any] = []
    Download(stage.client, name, "mesh", stage.job(name).mesh_bytes, arrived.append).start()
    stage.until(lambda: bool(arrived))
    assert arrived == [data]


def test_the_same_ticket_makes_one_job_however_often_it_is_sent(stage):
    first, second, other = stage.ask(asked("a")), stage.ask(asked("a")), stage.ask(asked("b"))
    assert first.job.job == second.job.job != other.job.job
    assert len(stage.door._ledger.entries) == 2


def test_one_device_works_on_one_job_and_the_others_know_their_place_in_line(stage):
    names = [stage.ask(asked(f"t{i}")).job.job for i in range(3)]
    stage.until(lambda: stage.foreman.given == names[:1])
    assert [stage.job(n).queue_place for n in names] == [0, 1, 2]
    stage.foreman.told = [Ended(names[0], "failed", "no luck", False)]
    stage.until(lambda: stage.foreman.given == names[:2])
    assert [(stage.job(n).state, stage.job(n).queue_place) for n in names] == [
        ("failed", 0),
        ("running", 0),
        ("queued", 1),
    ]
    assert stage.job(names[0]).message == "no luck"


def test_cancel_stops_a_waiting_job_at_once_and_a_running_one_after_its_step(stage):
    running, waiting = stage.ask(asked("a")).job.job, stage.ask(asked("b")).job.job
    stage.until(lambda: stage.foreman.given == [running])
    assert stage.ask(Cancel(waiting)).job.state == "cancelled"
    assert stage.ask(Cancel(running)).job.state == "cancelling"
    assert stage.ask(Cancel(running)).job.state == "cancelling"  # twice is once
    assert stage.foreman.stopped == [(running, "cancel")]
    (stage.door._ledger.job_folder(running) / MESH_FILE).write_bytes(b"half")
    stage.foreman.told = [Ended(running, "cancelled", "", True)]
    stage.until(lambda: stage.job(running).state == "cancelled")
    assert stage.job(running).mesh_bytes == 4
    assert stage.ask(Cancel(running)).job.state == "cancelled"  # after the end: no harm


def test_pause_keeps_the_place_and_resume_puts_the_job_back_into_the_queue(stage):
    name = stage.ask(asked()).job.job
    stage.until(lambda: stage.foreman.given == [name])
    stage.ask(Pause(name))
    stage.foreman.told = [Ended(name, "paused", "", False)]
    stage.until(lambda: stage.job(name).state == "paused")
    assert stage.ask(Resume(name)).job.state in ("queued", "running")
    stage.until(lambda: stage.foreman.given == [name, name])


def test_a_forgotten_job_is_gone_with_its_files_and_only_ended_ones_can_be(stage):
    stage.client.subscribe()
    name = stage.ask(asked()).job.job
    stage.until(lambda: stage.foreman.given == [name])
    assert stage.ask(Forget(name)).code == "not-now"
    stage.foreman.told = [Ended(name, "failed", "", False)]
    stage.until(lambda: stage.job(name).state == "failed")
    stage.ask(Forget(name))
    stage.until(lambda: any(isinstance(e, JobForgotten) for e in stage.events))
    assert not stage.door._ledger.job_folder(name).exists()
    assert stage.ask(Forget(name)).code == "no-such-job"
