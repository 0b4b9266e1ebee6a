# SPDX-License-Identifier: GPL-3.0-or-later
"""The job service with a fake clock, fake workers and a simulated full disk, without sockets or waiting."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dreamwright.backend.server.app import build_service
from dreamwright.backend.server.jobs.job_store import JobStore
from dreamwright.backend.server.monitoring.counters import Counters
from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.service import RequestContext
from dreamwright.backend.server.transport.event_publisher import EventPublisher
from dreamwright.backend.server.workers.fencing import check_fence
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.local_runner import WorkerExited
from dreamwright.backend.server.workers.worker_protocol import JobFinished, RunJob
from dreamwright.shared.errors import RequestError
from dreamwright.shared.messages import JobSummary, SubmitJob, Welcome


class InMemoryRunner:
    """A runner without processes: a test queues the reports."""

    survives_server = False

    def __init__(self, devices: tuple[str, ...]) -> None:
        self.devices, self.free = devices, list(devices)
        self.living: dict[str, int] = {}
        self.stopped: list[tuple[str, str]] = []
        self.watched: list[tuple[str, bool]] = []
        self.at_work: dict[str, RunJob] = {}  # by device
        self.given: list[str] = []
        self.killed: list[str] = []
        self.queued: list[Any] = []

    def idle_devices(self) -> list[str]:
        return list(self.free)

    def assign(self, device: str, job: RunJob) -> None:
        check_fence(Path(job.folder), job.attempt)
        self.free.remove(device)
        self.at_work[device] = job
        self.given.append(job.job)

    def reattach(self, running: Mapping[str, int]) -> set[str]:
        return {job for job, attempt in self.living.items() if running.get(job) == attempt}

    def stop(self, job: str, mode: str) -> None:
        self.stopped.append((job, mode))

    def watch(self, job: str, is_watched: bool) -> None:
        self.watched.append((job, is_watched))

    def kill(self, job: str) -> None:
        self.killed.append(job)

    def reports(self) -> Iterator[Any]:
        reports, self.queued = self.queued, []
        for report in reports:
            if isinstance(report, (JobFinished, WorkerExited)):
                for device, job in list(self.at_work.items()):
                    if job.job == report.job:
                        del self.at_work[device]
                        self.free.append(device)
            yield report


class FullDisk:
    """A database connection whose writes can be made to fail as on a full disk."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self._real, self.full = real, False

    def execute(self, statement: str, *values: Any) -> Any:
        if self.full and statement.startswith(("INSERT", "DELETE")):
            raise sqlite3.OperationalError("database or disk is full")
        return self._real.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class InMemoryServer:
    """A service on a state folder whose clock, runner and database connection are controlled by the test."""

    def __init__(self, folder: Path, devices: tuple[str, ...] = ("cpu",), policy: Policy = Policy()) -> None:
        self.folder, self.devices, self.policy = folder, devices, policy
        self.now, self.wall = 1000.0, 1.8e9
        self.request_count = 0
        self.living: dict[str, int] = {}  # attempts by job that the next server's runner reattaches
        self.open()

    def open(self) -> None:
        self.events: dict[bytes, list[Any]] = {}
        self.publisher = EventPublisher(
            lambda route, event: self.events.setdefault(route, []).append(event) is None, lambda: self.now
        )
        self.store = JobStore(self.folder, lambda: self.wall, lambda: self.now, self.publisher)
        self.disk = FullDisk(self.store._db)
        self.store._db = self.disk
        self.runner = InMemoryRunner(self.devices)
        self.runner.living = self.living
        self.counters = Counters()
        welcome = Welcome("test", "epoch")
        self.service = build_service(
            welcome, self.policy, self.store, self.publisher, self.counters, self.runner, lambda: self.now
        )

    def kill(self) -> None:
        """Stop as on SIGKILL: nothing more is written."""
        self.store._db._real.close()

    def request(self, request: Any, owner: str = "ada", admin: bool = False) -> Any:
        return self.service.answer(request, RequestContext(owner, owner.encode(), admin))

    def submit(self, owner: str = "ada", admin: bool = False, **changes: Any) -> str:
        self.request_count += 1
        fields = {
            "ticket": f"t{self.request_count}",
            "prompt": "a red mushroom",
            "negative": "",
            "model": "starter",
            "preset": "draft",
            "seed": 0,
            "settings": {},
        }
        return self.request(SubmitJob(**(fields | changes)), owner, admin).job.job

    def step(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.wall += seconds
        self.service.step()

    def report(self, kind: Callable[..., Any], job: str, *fields: Any) -> None:
        self.runner.queued.append(replace(kind(job, *fields), attempt=self.job(job).attempt))
        self.step()

    def job(self, job: str) -> JobSummary:
        return self.store.records[job].summary

    def finish(self, job: str, mesh: bytes = b"mesh") -> None:
        (self.store.job_folder(job) / MESH_FILE).write_bytes(mesh)
        self.report(JobFinished, job, "succeeded", "", True)
        assert self.job(job).state == "succeeded"

    def refusal(self, request: Any, owner: str = "ada", admin: bool = False) -> RequestError:
        with pytest.raises(RequestError) as caught:
            self.request(request, owner, admin)
        return caught.value


@pytest.fixture
def in_memory_server(tmp_path: Path) -> InMemoryServer:
    return InMemoryServer(tmp_path / "state")
