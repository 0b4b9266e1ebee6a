# SPDX-License-Identifier: GPL-3.0-or-later
"""The server: jobs, queue, workers, crashes and recovery, through its real port and (once) a real worker."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any, Callable

import msgpack
import pytest
import zmq

from dreamwright.backend.errors import CheckpointError, ConfigError
from dreamwright.backend.server import foreman as foreman_module
from dreamwright.backend.server.front_door import FrontDoor, check_address
from dreamwright.backend.server.ledger import Ledger
from dreamwright.backend.server.orders import Ended, Noted, Pictured, Stepped
from dreamwright.backend.server.requests import capabilities
from dreamwright.backend.server.worker import MESH_FILE
from dreamwright.shared import limits
from dreamwright.shared.client import Client, Link
from dreamwright.shared.download import Download
from dreamwright.shared.faults import Refused
from dreamwright.shared.mesh_file import decode_mesh
from dreamwright.shared.messages import (
    AskCapabilities,
    Cancel,
    Forget,
    Hello,
    JobChanged,
    JobForgotten,
    JobList,
    JobReply,
    ListJobs,
    Pause,
    PreviewFrame,
    Resume,
    Seen,
    Submit,
    pack,
    unpack,
)
from dreamwright.shared.states import JobState


def asked(ticket: str = "t1", **changes: Any) -> Submit:
    fields = {
        "ticket": ticket, "prompt": "a red mushroom", "negative": "", "model": "starter", "preset": "draft", "seed": 0,
        "settings": {},
    }  # fmt: skip
    return Submit(**(fields | changes))


class PuppetForeman:
    """Workers that do nothing until a test says what they report."""

    def __init__(self, context, devices, log_folder):
        import zmq

        self.socket = context.socket(zmq.ROUTER)
        self.free = list(devices)
        self.given: list[str] = []
        self.attempts: dict[str, int] = {}
        self.stopped: list[tuple[str, str]] = []
        self.told: list[Any] = []

    def idle(self):
        return list(self.free)

    def give(self, device, job, folder):
        self.free.remove(device)
        self.given.append(job.job)
        self.attempts[job.job] = job.attempt
        folder.mkdir(parents=True, exist_ok=True)

    def stop(self, job, why):
        self.stopped.append((job, why))

    def reports(self):
        told, self.told = self.told, []
        for report in told:
            if isinstance(report, (Ended, foreman_module.Died)):
                self.free.append("cpu")
            if not isinstance(report, foreman_module.Died) and not report.attempt:
                report = replace(report, attempt=self.attempts[report.job])
            yield report

    def close(self, grace_s=0.0):
        self.socket.close(0)


class Stage:
    """A server with puppet workers, and a client beside it in the same thread."""

    def __init__(self, folder, monkeypatch):
        monkeypatch.setattr("dreamwright.backend.server.front_door.Foreman", PuppetForeman)
        self.folder = folder
        self.open()

    def open(self):
        self.door = FrontDoor("tcp://127.0.0.1:*", self.folder, ("cpu",))
        self.client = Client(self.door.address)
        self.client.connect()
        self.events: list[Any] = []
        self.until(lambda: self.client.link is Link.ONLINE)

    @property
    def foreman(self):
        return self.door._foreman

    def turn(self):
        self.door.step(0.005)
        self.events += self.client.tick()

    def until(self, happened: Callable[[], bool], limit_s: float = 10.0):
        end = time.monotonic() + limit_s
        while not happened():
            if time.monotonic() > end:
                raise TimeoutError(f"it did not happen; events: {self.events[-3:]}")
            self.turn()

    def ask(self, message: Any) -> Any:
        answers: list[Any] = []
        self.client.request(message, answers.append)
        self.until(lambda: bool(answers))
        return answers[0]

    def job(self, name):
        return self.door._ledger.entries[name].summary

    def close(self):
        self.client.close()
        self.door.close()


@pytest.fixture
def stage(tmp_path, monkeypatch):
    stage = Stage(tmp_path / "state", monkeypatch)
    yield stage
    stage.close()


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


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "a red gryphon"}, "gryphon.*knows the colours.*props.*mushroom"),
        ({"model": "no-such"}, "unknown model 'no-such'"),
        ({"preset": "best"}, "unknown preset 'best'; allowed are"),
        ({"settings": {"run.stepz": 3}}, "unknown setting 'run.stepz'; did you mean run.steps"),
        ({"settings": {"run.steps": 0}}, "run.steps is 0; allowed is 1"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason_and_leaves_no_job(stage, changes, words):
    answer = stage.ask(asked(**changes))
    assert isinstance(answer, Refused) and answer.code == "bad-input"
    assert re.search(words, answer.message), answer.message
    assert not stage.door._ledger.entries


def test_one_device_works_on_one_job_and_the_others_know_their_place_in_line(stage):
    names = [stage.ask(asked(f"t{i}")).job.job for i in range(3)]
    stage.until(lambda: stage.foreman.given == names[:1])
    assert [stage.job(n).queue_place for n in names] == [0, 1, 2]
    stage.foreman.told = [Ended(names[0], "failed", "no luck", False)]
    stage.until(lambda: stage.foreman.given == names[:2])
    assert [(stage.job(n).state, stage.job(n).queue_place) for n in names] == [("failed", 0), ("running", 0), ("queued", 1)]
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


def test_a_dead_worker_costs_no_job_until_it_has_died_three_times(stage):
    name = stage.ask(asked()).job.job
    for times in (1, 2, 3):
        stage.until(lambda: len(stage.foreman.given) == times)
        stage.foreman.told = [foreman_module.Died(name, -9)]
        stage.until(lambda: stage.job(name).state != "running" or len(stage.foreman.given) > times)
    stage.until(lambda: stage.job(name).state == "failed")
    assert "status -9" in stage.job(name).message and "3 times" in stage.job(name).message


def test_jobs_survive_a_restart_of_the_server_and_running_ones_go_on(stage):
    running, waiting, done = (stage.ask(asked(t)).job.job for t in "abc")
    stage.until(lambda: stage.foreman.given == [running])
    stage.ask(Cancel(done))
    before = stage.job(running).changed
    stage.close()
    stage.open()
    assert stage.job(done).state == "cancelled"
    stage.until(lambda: stage.foreman.given == [running])
    assert stage.job(waiting).queue_place == 1
    assert stage.job(running).changed > before  # or a client that saw the old state would ignore the new one


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


def test_a_client_that_never_acknowledges_previews_gets_two_and_later_the_latest(stage, monkeypatch):
    name = stage.ask(asked()).job.job
    stage.until(lambda: stage.foreman.given == [name])
    stage.client.subscribe(name)
    stage.turn()
    stage.turn()
    monkeypatch.setattr("dreamwright.shared.client.Seen", lambda count: AskCapabilities())
    for step in range(1, 7):
        stage.foreman.told = [Pictured(name, step, 1, 1, b"x")]
        stage.turn()
    for _ in range(20):
        stage.turn()
    assert [e.step for e in stage.events if isinstance(e, PreviewFrame)] == [1, 2]
    monkeypatch.undo()
    stage.client._send(Seen(2), 0)
    stage.until(lambda: [e.step for e in stage.events if isinstance(e, PreviewFrame)] == [1, 2, 6])


def test_capabilities_describe_models_presets_and_settings(stage):
    able = stage.ask(AskCapabilities())
    starter = able.models[0]
    assert starter.name == "starter" and starter.ready and "mushroom" in starter.vocabulary
    assert {preset.name for preset in able.presets} == {"draft", "standard", "paper"}
    assert capabilities(("cpu",)).presets[0].name == "draft", "a stranger's first prop comes in minutes"
    assert capabilities(("cuda:0", "cpu")).presets[0].name == "standard"
    height = next(card for card in able.settings if card.name == "mesh.height_m")
    assert height.kind == "number" and height.low <= height.defaults["draft"] <= height.high


def test_all_jobs_can_be_listed_page_by_page_newest_change_first(stage):
    names = [stage.ask(asked(f"t{number}")).job.job for number in range(5)]
    pages, before = [], 0
    while True:
        page = stage.ask(ListJobs(before, 2)).jobs
        if not page:
            break
        pages.append([job.job for job in page])
        assert [job.changed for job in page] == sorted((job.changed for job in page), reverse=True)
        before = page[-1].changed
    assert [len(page) for page in pages] == [2, 2, 1]
    assert sorted(name for page in pages for name in page) == sorted(names)


@pytest.mark.parametrize("version", [0, 3, "new"])
def test_a_client_of_another_version_is_answered_in_words_and_harms_nobody(stage, version):
    stranger = zmq.Context.instance().socket(zmq.DEALER)
    try:
        stranger.connect(stage.door.address)
        hello = msgpack.unpackb(pack(Hello("c" * 32, "another"), 7))
        stranger.send(msgpack.packb({**hello, "version": version}))
        stage.until(lambda: stranger.poll(0))
        number, answer = unpack(stranger.recv(), limits.REPLY_BYTES)
    finally:
        stranger.close(0)
    assert (number, answer.code) == (7, "version")
    assert f"speaks protocol version {version}, this one 2" in answer.message and "update the older" in answer.message
    assert stage.client.link is Link.ONLINE


def test_a_state_folder_has_one_server(stage):
    with pytest.raises(CheckpointError, match="another server uses"):
        FrontDoor("tcp://127.0.0.1:*", stage.folder, ("cpu",))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1", "tcp://:1", "tcp://127.0.0.1:port", "udp://127.0.0.1:1", "here"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ConfigError, match="allowed"):
        check_address(address)


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path):
    ledger = Ledger(tmp_path)
    ledger._db.execute("PRAGMA user_version=99")
    ledger.close()
    with pytest.raises(CheckpointError, match="newer Dreamwright"):
        Ledger(tmp_path)


@pytest.mark.slow
def test_a_real_worker_makes_a_job_pauses_resumes_dies_and_goes_on(tmp_path):
    """Through a real process and the starter model: pause, resume, SIGKILL of the worker, and a cancel that keeps a mesh."""
    door = FrontDoor("tcp://127.0.0.1:*", tmp_path / "state", ("cpu",))
    client = Client(door.address)
    client.connect()
    answers: list[Any] = []
    settings = {"run.steps": 5000, "run.checkpoint_interval": 2, "run.preview_interval": 2, "render.resolution": 16,
                "render.samples": 16, "mesh.resolution": 32, "run.threads": 1, "mesh.threshold": 1.0}  # fmt: skip

    def until(happened: Callable[[], bool], limit_s: float = 120.0) -> None:
        end = time.monotonic() + limit_s
        while not happened():
            if time.monotonic() > end:
                log = (tmp_path / "state" / "logs" / "worker-cpu.log").read_text()
                raise TimeoutError(f"{[e.summary for e in door._ledger.entries.values()]}\n{log[-2000:]}")
            door.step(0.02)
            client.tick()

    try:
        until(lambda: client.link is Link.ONLINE)
        client.request(asked(settings=settings), answers.append)
        until(lambda: bool(answers))
        assert isinstance(answers[0], JobReply), answers
        name = answers[0].job.job

        def now() -> Any:
            return door._ledger.entries[name].summary

        until(lambda: now().step >= 2)
        client.request(Pause(name), answers.append)
        until(lambda: now().state == "paused")
        paused_at = now().step
        client.request(Resume(name), answers.append)
        until(lambda: now().state == "running" and now().step > paused_at)
        assert now().step <= paused_at + 30
        door._foreman._hands["cpu"].process.kill()
        until(lambda: door._ledger.entries[name].attempts == 1)
        died_at = now().step
        until(lambda: now().state == "running" and now().step > died_at)
        client.request(Cancel(name), answers.append)
        until(lambda: now().state == JobState.CANCELLED.value)
        assert now().mesh_bytes, now().message
        fetched: list[Any] = []
        Download(client, name, "mesh", now().mesh_bytes, fetched.append).start()
        until(lambda: bool(fetched))
        mesh = decode_mesh(fetched[0])
        assert len(mesh.faces) and mesh.facts["prompt"] == "a red mushroom"
    finally:
        client.close()
        door.close()
