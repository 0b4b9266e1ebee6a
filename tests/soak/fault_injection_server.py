# SPDX-License-Identifier: GPL-3.0-or-later
"""A server in this process whose workers inject planned faults, with the history of each job."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from dreamwright.backend.server.app import Server
from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.workers import attempt_tracker, local_runner
from dreamwright.shared.client import Client
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.job_states import ENDED, JobState
from dreamwright.shared.messages import CancelJob, JobReply, JobSummary, SubmitJob
from tests.soak.worker_processes import read_attempts
from tests.testing.tiny_model import QUICK, SLOW_RATES, save_tiny_model

ROOT = Path(__file__).resolve().parents[2]
INTERVAL = 4  # steps between two checkpoints


@dataclass
class JobHistory:
    """The job summaries seen, one for each change."""

    seen: list[tuple[float, JobSummary]] = field(default_factory=list)

    def note(self, job: JobSummary) -> None:
        if not self.seen or self.seen[-1][1].changed != job.changed:
            self.seen.append((time.monotonic(), job))

    def first(self, holds: Callable[[JobSummary], bool]) -> float:
        """Time of the first summary that meets a condition. Raises StopIteration if there is none."""
        return next(at for at, job in self.seen if holds(job))


class FaultInjectionServer:
    """One server, one device and one client."""

    def __init__(self, folder: Path, policy: Policy, steps: int = 12, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.state = folder, folder / "state"
        self.model = save_tiny_model(folder / "model")
        self.settings = dict(setting.split("=") for setting in QUICK)
        self.settings |= {
            "run.steps": str(steps),
            "run.checkpoint_interval": str(INTERVAL),
            "run.threads": "1",
            "mesh.threshold": "1.0",
            "run.max_restarts": "0",
            "run.preview_interval": "1000",
            "text.process": "same",
            **SLOW_RATES,
        }
        self.settings |= settings
        self.plan: dict[str, dict[str, Any]] = {}
        self.faults = folder / "faults.json"
        self.histories: dict[str, JobHistory] = {}
        self.tickets = 0
        environment = {"DREAMWRIGHT_FAULTS": str(self.faults), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        # Workers are started with the environment of this process for as long as the server runs.
        self._patches = ExitStack()
        self._patches.enter_context(mock.patch.dict(os.environ, environment))
        self._patches.enter_context(mock.patch.object(local_runner, "WORKER_MODULE", "tests.soak.faulty_worker"))
        # Out-of-memory kills of other programs must not be attributed to these jobs.
        self._patches.enter_context(mock.patch.object(attempt_tracker, "oom_kills", lambda: 0))
        self.server = Server("tcp://127.0.0.1:*", self.state, ("cpu",), policy=policy)
        self.client = Client(self.server.address)
        self.client.connect()
        self.wait_until(lambda: self.client.state is ConnectionState.ONLINE)

    def close(self) -> None:
        self.client.close()
        self.server.close()
        self._patches.close()

    def step(self, wait_s: float = 0.005) -> None:
        self.server.step(wait_s)
        self.client.tick()
        for name, entry in self.server.store.records.items():
            self.histories.setdefault(name, JobHistory()).note(entry.summary)

    def wait_until(self, happened: Callable[[], bool], limit_s: float = 900.0) -> None:
        end = time.monotonic() + limit_s
        while not happened():
            if time.monotonic() > end:
                raise TimeoutError(
                    f"the condition does not hold after {limit_s} s; jobs: "
                    f"{[entry.summary for entry in self.server.store.records.values()]}"
                )
            self.step()

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.step()

    def request(self, request: Any) -> Any:
        answers: list[Any] = []
        self.client.request(request, answers.append)
        self.wait_until(lambda: bool(answers))
        return answers[0]

    def submit(self, fault: dict[str, Any] | None = None, seed: int | None = None, **settings: Any) -> str:
        """Submit a job, with a fault to inject. A job with a fault needs its own seed."""
        self.tickets += 1
        seed = self.tickets if seed is None else seed
        if fault is not None:
            self.plan[str(seed)] = fault
        beside = self.faults.with_suffix(".part")
        beside.write_text(json.dumps(self.plan))
        os.replace(beside, self.faults)
        reply = self.request(
            SubmitJob(
                f"t{self.tickets}", "a red mushroom", "", str(self.model), "draft", seed, self.settings | settings
            )
        )
        if not isinstance(reply, JobReply):
            raise RuntimeError(str(reply))
        return reply.job.job

    def cancel(self, job: str) -> JobSummary:
        return self.request(CancelJob(job)).job

    def job(self, name: str) -> JobSummary:
        return self.server.store.records[name].summary

    def ended(self, name: str) -> JobSummary:
        """Wait until a job has ended; returns it."""
        self.wait_until(lambda: JobState(self.job(name).state) in ENDED)
        self.step()
        return self.job(name)

    def worker(self) -> int:
        """Process id of the worker."""
        return self.server.runner._workers["cpu"].process.pid

    def faults_injected(self, name: str) -> list[tuple[int, float]]:
        """(attempt, time) of each fault injected into a job."""
        path = self.faults.with_suffix(".log")
        lines = [line.split() for line in path.read_text().splitlines()] if path.is_file() else []
        return [(int(attempt), float(at)) for job, attempt, at in lines if job == name]

    def attempts(self, name: str) -> list[tuple[int, int]]:
        """(attempt, first step) of a job, from the worker logs."""
        return read_attempts(self.state).get(name, [])


@contextmanager
def running_fault_server(folder: Path, policy: Policy, **options: Any) -> Iterator[FaultInjectionServer]:
    """A fault injection server, closed at the end."""
    server = FaultInjectionServer(folder, policy, **options)
    try:
        yield server
    finally:
        server.close()
