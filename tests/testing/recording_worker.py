# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker without a socket that runs attempts of a tiny job in the test process."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from dreamwright.backend.server.workers.fencing import raise_fence
from dreamwright.backend.server.workers.worker import Worker
from dreamwright.backend.server.workers.worker_protocol import JobFinished, ProgressReport, RunJob, StatusReport, Stop
from tests.testing.job_orders import attempt_order
from tests.testing.tiny_model import QUICK, save_tiny_model

SETTINGS = {
    **dict(setting.split("=") for setting in QUICK),
    "run.threads": "1",
    "mesh.threshold": "1.0",
    "run.max_restarts": "0",
}


class RecordingWorker(Worker):
    """Keeps its reports in `sent`, pauses after reporting step `stop_at`, and is watched from `watch_at` on."""

    def __init__(self) -> None:
        self._secret, self.device, self._stop, self._reported, self._attempt = "", "cpu", None, 0.0, 0
        self._is_watched = False
        self._orphaned = threading.Event()
        self.sent: list[Any] = []
        self.stop_at = self.watch_at = 10**9

    def send(self, message: object) -> None:
        self.sent.append(message)

    def _requested_stop(self) -> str:
        step = max([0, *self.steps()])
        self._is_watched = step >= self.watch_at
        if step >= self.stop_at:
            self._stop = Stop("job", "pause")
        return self._stop.mode if self._stop is not None else ""

    @property
    def ended(self) -> JobFinished:
        (ended,) = [report for report in self.sent if isinstance(report, JobFinished)]
        return ended

    def notes(self) -> str:
        return " | ".join(report.message for report in self.sent if isinstance(report, StatusReport))

    def steps(self) -> list[int]:
        return [report.step for report in self.sent if isinstance(report, ProgressReport)]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline, shared and read-only."""
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def report_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the pause between two progress reports."""
    monkeypatch.setattr("dreamwright.backend.server.workers.job_executor.REPORT_S", 0.0)


def job_order(model: Path, folder: Path, number: int) -> RunJob:
    """The order to run attempt `number` of a job of six steps in `folder`."""
    return attempt_order(model, folder, number, settings=dict(SETTINGS))


def run_attempt(model: Path, folder: Path, number: int, worker: RecordingWorker | None = None) -> RecordingWorker:
    """Run one attempt to its end, in this process."""
    worker = worker or RecordingWorker()
    raise_fence(folder, number)
    worker.run(job_order(model, folder, number))
    return worker


def run_until_rename(model: Path, folder: Path, name: str, count: int) -> None:
    """Run attempt 1 and end this process by SIGKILL just before a file is renamed to `name` for the `count`-th time."""
    rename, left = os.replace, count

    def replace(source: Any, target: Any) -> None:
        nonlocal left
        left -= Path(target).name == name
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.replace = replace
    run_attempt(model, folder, 1)
