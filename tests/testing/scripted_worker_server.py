# SPDX-License-Identifier: GPL-3.0-or-later
"""A server whose workers report only what a test queues, and a client in the same thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zmq

from dreamwright.backend.server.app import Server
from dreamwright.backend.server.workers import local_runner
from dreamwright.backend.server.workers.worker_protocol import JobFinished
from dreamwright.shared.client import Client
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.messages import SubmitJob


def submit_message(ticket: str = "t1", **changes: Any) -> SubmitJob:
    fields = {
        "ticket": ticket, "prompt": "a red mushroom", "negative": "", "model": "starter", "preset": "draft", "seed": 0,
        "settings": {},
    }  # fmt: skip
    return SubmitJob(**(fields | changes))


class ScriptedRunner:
    """A runner without processes: jobs stay assigned until a test queues their reports."""

    survives_server = False

    def __init__(self, context, devices, log_folder):
        self.socket = context.socket(zmq.ROUTER)
        self.devices, self.free = devices, list(devices)
        self.given: list[str] = []
        self.attempts: dict[str, int] = {}
        self.stopped: list[tuple[str, str]] = []
        self.watched: list[tuple[str, bool]] = []
        self.killed: list[str] = []
        self.queued: list[Any] = []

    def idle_devices(self):
        return list(self.free)

    def reattach(self, running):
        return set()

    def assign(self, device, job):
        self.free.remove(device)
        self.given.append(job.job)
        self.attempts[job.job] = job.attempt
        Path(job.folder).mkdir(parents=True, exist_ok=True)

    def stop(self, job, mode):
        self.stopped.append((job, mode))

    def watch(self, job, is_watched):
        self.watched.append((job, is_watched))

    def kill(self, job):
        self.killed.append(job)

    def reports(self):
        reports, self.queued = self.queued, []
        for report in reports:
            if isinstance(report, (JobFinished, local_runner.WorkerExited)):
                self.free.append("cpu")
            is_numbered = isinstance(report, local_runner.WorkerExited) or report.attempt
            yield report if is_numbered else replace(report, attempt=self.attempts[report.job])

    def close(self, grace_s=0.0):
        self.socket.close(0)


class ScriptedServer:
    """A server with a `ScriptedRunner`, and a client in the same thread."""

    def __init__(self, folder, monkeypatch):
        monkeypatch.setattr("dreamwright.backend.server.app.LocalRunner", ScriptedRunner)
        self.folder = folder
        self.open()

    def open(self):
        self.server = Server("tcp://127.0.0.1:*", self.folder, ("cpu",))
        self.client = Client(self.server.address)
        self.client.connect()
        self.events: list[Any] = []
        self.wait_until(lambda: self.client.state is ConnectionState.ONLINE)

    @property
    def runner(self):
        return self.server.runner

    def step(self):
        self.server.step(0.005)
        self.events += self.client.tick()

    def wait_until(self, condition: Callable[[], bool], limit_s: float = 10.0):
        end = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"the condition does not hold after {limit_s} s; events: {self.events[-3:]}")
            self.step()

    def request(self, message: Any) -> Any:
        answers: list[Any] = []
        self.client.request(message, answers.append)
        self.wait_until(lambda: bool(answers))
        return answers[0]

    def job(self, name):
        return self.server.store.records[name].summary

    def close(self):
        self.client.close()
        self.server.close()


@pytest.fixture
def scripted_server(tmp_path, monkeypatch):
    scripted_server = ScriptedServer(tmp_path / "state", monkeypatch)
    yield scripted_server
    scripted_server.close()
