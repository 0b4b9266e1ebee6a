# SPDX-License-Identifier: GPL-3.0-or-later
"""A server or a bare Ray runner on a test cluster, and the processes of its actors."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import zmq

from dreamwright.backend.server.app import Server
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.ray_runner import RayRunner, own_namespace
from dreamwright.shared.client import Client
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.messages import JobSummary, PreviewFrame, SubmitJob
from tests.testing.job_events import jobs_in
from tests.testing.ray_jobs import SETTINGS, STEPS
from tests.testing.ray_test_cluster import RayTestCluster


class ClusterServer:
    """A server on the cluster and a client, in one thread."""

    def __init__(self, state: Path, machines: RayTestCluster, model: Path) -> None:
        self.state, self._machines, self._model = state, machines, model
        self.jobs: dict[str, JobSummary] = {}
        self.previews: list[PreviewFrame] = []
        self.tickets = 0
        self.open()

    def open(self) -> None:
        def runner(context: zmq.Context) -> RayRunner:
            return RayRunner(context, self._machines.address, own_namespace(self.state), self.state / "logs", "cpu")

        self.server = Server("tcp://127.0.0.1:*", self.state, (), runner=runner)
        self.client = Client(self.server.address)
        self.client.connect()
        self.client.subscribe()
        self.wait_until(lambda: self.client.state is ConnectionState.ONLINE)

    @property
    def runner(self) -> Any:
        return self.server.runner

    def step(self) -> None:
        self.server.step(0.02)
        for event in self.client.tick():
            for job in jobs_in(event):
                self.jobs[job.job] = job
            if isinstance(event, PreviewFrame):
                self.previews.append(event)

    def wait_until(self, condition: Callable[[], bool], limit_s: float = 240.0) -> None:
        end = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end:
                logs = "".join(path.read_text()[-2000:] for path in (self.state / "logs").glob("*"))
                raise TimeoutError(f"the condition was not met; jobs: {list(self.jobs.values())}; logs: {logs}")
            self.step()

    def request(self, message: Any) -> Any:
        answers: list[Any] = []
        self.client.request(message, answers.append)
        self.wait_until(lambda: bool(answers))
        return answers[0]

    def submit(self, steps: int = STEPS) -> str:
        self.tickets += 1
        settings = SETTINGS | {"run.steps": str(steps)}
        return self.request(
            SubmitJob(f"t{self.tickets}", "a red mushroom", "", str(self._model), "draft", 0, settings)
        ).job.job

    def job(self, name: str) -> JobSummary:
        return self.server.store.records[name].summary

    def mesh(self, name: str) -> bytes:
        return (self.server.store.job_folder(name) / MESH_FILE).read_bytes()

    def close(self) -> None:
        self.client.close()
        self.server.close()


class ClusterRunner:
    """A Ray runner without a server; keeps all reports in `received`."""

    def __init__(self, folder: Path, machines: RayTestCluster, grace_s: float = 60.0) -> None:
        self._context, self._folder = zmq.Context(), folder
        self.received: list[Any] = []
        self.open(machines, grace_s)

    def open(self, machines: RayTestCluster, grace_s: float) -> None:
        self.runner = RayRunner(
            self._context, machines.address, f"dreamwright-{self._folder.name}", self._folder / "logs", "cpu", grace_s
        )
        self.runner.reattach({})

    def wait_until(self, condition: Callable[[Any], bool], limit_s: float = 240.0) -> Any:
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            self.runner.socket.poll(50)
            self.received += self.runner.reports()
            for report in self.received:
                if condition(report):
                    return report
        raise TimeoutError(f"the condition was not met; {self.received[-5:]}")

    def close(self) -> None:
        self.runner.close()
        self._context.destroy(0)


def actor_processes() -> list[psutil.Process]:
    """The processes of job actors, which Ray names by their class."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "ray::JobActor" in " ".join(process.info["cmdline"] or ())
    ]
