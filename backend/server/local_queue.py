# SPDX-License-Identifier: GPL-3.0-or-later
"""The jobs of one folder on all devices of this machine, without clients: what `dreamwright batch` runs.

The same job store, dispatcher, workers and retry rule as the server's, so that jobs survive a kill at any moment.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import zmq

from dreamwright.shared.messages import SubmitJob

from ..errors import RunError
from .jobs.cleanup import Cleanup
from .jobs.job_record import JobRecord
from .jobs.job_store import JobStore
from .monitoring.counters import Counters
from .monitoring.logging_setup import LogFormatter
from .policy import Policy
from .transport.event_publisher import EventPublisher
from .workers.dispatcher import Dispatcher
from .workers.local_runner import LocalRunner

OWNER = "local"
KEEP_ALL = Policy(keep_days=36_500.0, keep_gb=1e6)  # results expire on a server only
FAILED_STARTS = 4  # of every device's worker in a row, after which the installation is taken to be broken


class LocalQueue:
    """Jobs of `folder`, which the caller has locked. Call `step` often, and `close` at the end.

    Raises CheckpointError for a folder whose jobs cannot be used.
    """

    def __init__(self, folder: Path, devices: tuple[str, ...]) -> None:
        self._handler = _log_to(folder / "logs")
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        try:
            publisher = EventPublisher(lambda route, event: False, time.monotonic)
            self._store = JobStore(folder, listener=publisher)
            self._runner = LocalRunner(self._context, devices, folder / "logs")
            self._dispatcher = Dispatcher(
                self._store, publisher, Counters(), self._runner, Cleanup(self._store, KEEP_ALL), KEEP_ALL,
                time.monotonic,
            )  # fmt: skip
            self._dispatcher.recover()
        except BaseException:
            self._context.destroy(linger=0)
            _stop_log(self._handler)
            raise

    @property
    def records(self) -> Mapping[str, JobRecord]:
        """Every job of the folder by its name."""
        return self._store.records

    def find(self, ticket: str) -> JobRecord | None:
        """The job that was submitted with this ticket."""
        return self._store.find_ticket(OWNER, ticket)

    def job_folder(self, job: str) -> Path:
        """The folder of a job's files."""
        return self._store.job_folder(job)

    def submit(self, request: SubmitJob, steps: int) -> JobRecord:
        """Queue a job; a ticket that is known names the job that it named before. Raises StorageError."""
        return self.find(request.ticket) or self._store.add(OWNER, request, steps)

    def resume(self, job: str) -> None:
        """Queue a paused or failed job again, which goes on from its checkpoint if it left one. Raises StorageError."""
        self._dispatcher.resume(job)

    def pause_waiting(self, kept: set[str]) -> None:
        """Pause the queued jobs that are not in `kept`, which nobody asked for now. Raises StorageError."""
        for record in reversed(self._store.waiting()):  # from the end, so that no other job changes its position
            if record.job not in kept:
                self._dispatcher.pause(record.job)

    def step(self, wait_s: float = 0.1) -> None:
        """Wait for a worker's report, at most `wait_s`, and do what there is to do.

        Raises RunError when no worker can be started.
        """
        self._runner.socket.poll(int(1000 * wait_s))
        self._dispatcher.step()
        if self._runner.failed_starts >= FAILED_STARTS:
            raise RunError(f"no worker process can be started; the logs in {self._store.folder / 'logs'} say why")

    @property
    def has_idle_device(self) -> bool:
        """Whether a device waits for a job that is queued."""
        return bool(self._store.queued) and bool(self._runner.idle_devices())

    def stop(self) -> None:
        """Let the running jobs end after their step, with a checkpoint; they are queued again."""
        self._dispatcher.stop_all()

    @property
    def running(self) -> list[str]:
        """The jobs that are being run."""
        return self._dispatcher.running_jobs()

    def close(self, grace_s: float = 5.0) -> None:
        """End the workers, whose checkpoints keep what was done."""
        self._runner.close(grace_s)
        self._store.close()
        self._context.destroy(linger=0)
        _stop_log(self._handler)


SERVER_LOG = logging.getLogger(__name__.rpartition(".")[0])


def _log_to(folder: Path) -> logging.Handler:
    """Write the log of the queue to a file beside those of its workers."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / "batch.log", encoding="utf-8", delay=True)
    handler.setFormatter(LogFormatter("text", logging.INFO))
    SERVER_LOG.addHandler(handler)
    SERVER_LOG.setLevel(logging.INFO)
    SERVER_LOG.propagate = False  # a terminal shows a progress bar
    return handler


def _stop_log(handler: logging.Handler) -> None:
    SERVER_LOG.removeHandler(handler)
    SERVER_LOG.setLevel(logging.NOTSET)
    SERVER_LOG.propagate = True
    handler.close()
