# SPDX-License-Identifier: GPL-3.0-or-later
"""The runner of one machine: one worker process for each device, started on demand and replaced when it ends."""

from __future__ import annotations

import logging
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from dreamwright.shared.errors import ProtocolError

from ...io.child_process import close_stdin, start_child
from .runner import WorkerExited
from .worker_endpoint import WorkerEndpoint
from .worker_protocol import JobFinished, Ready, Report, RunJob, Stop, Watch, pack_order, unpack_order

log = logging.getLogger(__name__)

WORKER_MODULE = "dreamwright.backend.server.workers.worker"
REPORTS_PER_CALL = 1000  # one worker must not keep the server from its work
START_TIMEOUT_S = 600.0  # for a worker to become ready for its next job; then it is killed and started again
LONGEST_BACKOFF_S = 60.0  # before a worker that ends before it was ready is started again; 1 s at first, doubling


@dataclass
class WorkerProcess:
    """The worker process of one device."""

    device: str
    process: subprocess.Popen[bytes] | None = None
    route: bytes = b""  # routing id of its connection; empty until it was ready once
    job: str = ""  # that it runs
    ready: bool = False
    since: float = 0.0  # when it was started, or finished its last job
    failures: int = 0  # exits in a row before it was ready
    start_after: float = 0.0  # not started again before this time


class LocalRunner:
    """A `Runner` that talks to its workers over a socket of its own; `log_folder` lies in the state folder."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        devices: tuple[str, ...],
        log_folder: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._secret = secrets.token_hex(32)
        self._endpoint = WorkerEndpoint(context, log_folder.parent)
        self.socket = self._endpoint.socket
        self._workers = {device: WorkerProcess(device) for device in devices}
        self._log_folder, self._clock = log_folder, clock

    @property
    def survives_server(self) -> bool:
        """False: workers end with their server."""
        return False

    @property
    def devices(self) -> tuple[str, ...]:
        """All devices, which stay the same while the server runs."""
        return tuple(self._workers)

    @property
    def failed_starts(self) -> int:
        """How often in a row every device's worker ended before it was ready; the fewest of all devices."""
        return min((worker.failures for worker in self._workers.values()), default=0)

    def reattach(self, running: Mapping[str, int]) -> set[str]:
        """Nothing: workers end with their server. The job's lock keeps a slow one away from its job."""
        return set()

    def idle_devices(self) -> list[str]:
        """Devices without a job; starts a worker for each device that has none."""
        for worker in self._workers.values():
            if worker.process is None and self._clock() >= worker.start_after:
                self._start(worker)
        return [worker.device for worker in self._workers.values() if worker.ready and not worker.job]

    def assign(self, device: str, order: RunJob) -> None:
        """Send an order to a device's worker."""
        worker = self._workers[device]
        worker.job, worker.ready = order.job, False
        self._send(worker, order)

    def stop(self, job: str, mode: str) -> None:
        """Tell the worker of a job to stop it: "pause" or "cancel"."""
        for worker in self._workers.values():
            if worker.job == job:
                self._send(worker, Stop(job, mode))

    def watch(self, job: str, is_watched: bool) -> None:
        """Tell the worker of a job whether its live meshes are wanted."""
        for worker in self._workers.values():
            if worker.job == job:
                self._send(worker, Watch(job, is_watched))

    def kill(self, job: str) -> None:
        """Kill the worker of a job; `reports` returns its exit."""
        for worker in self._workers.values():
            if worker.job == job and worker.process is not None:
                worker.process.kill()

    def reports(self) -> Iterator[Report | WorkerExited]:
        """Reports of the workers since the last call, and `WorkerExited` for each worker that ended."""
        for _ in range(REPORTS_PER_CALL):
            try:
                route, data = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            except ValueError:
                continue  # another program's message with another number of frames
            try:
                report = unpack_order(self._secret, data)
            except ProtocolError as error:
                # The first words only: what follows may quote a field.
                log.warning("message on the workers' port ignored", extra={"why": str(error).partition(" is ")[0]})
                continue
            if isinstance(report, Ready):
                worker = self._workers.get(report.device)
                if worker is not None:
                    worker.route, worker.ready, worker.job, worker.failures = route, True, "", 0
            else:
                if isinstance(report, JobFinished):
                    self._release(route)
                yield report
        for worker in self._workers.values():
            exited = self._check(worker)
            if exited is not None:
                yield exited

    def close(self, grace_s: float = 5.0) -> None:
        """End all workers: close their stdin, then kill those that still run after `grace_s`."""
        end = time.monotonic() + grace_s
        running = [worker.process for worker in self._workers.values() if worker.process is not None]
        for process in running:
            close_stdin(process)
        for process in running:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._endpoint.close()

    def _check(self, worker: WorkerProcess) -> WorkerExited | None:
        """Kill a worker that does not become ready; the exit of one that ended since the last call."""
        if worker.process is None:
            return None
        if not worker.job and not worker.ready and self._clock() - worker.since > START_TIMEOUT_S:
            log.warning(
                "worker not ready in time; killed and started again",
                extra={"device": worker.device, "after_s": START_TIMEOUT_S},
            )
            worker.process.kill()
        status = worker.process.poll()
        if status is None:
            return None
        exited = WorkerExited(worker.job, status)
        close_stdin(worker.process)
        if not worker.route:  # it never became ready: a broken installation, or too little memory
            self._backoff(worker)
        worker.process, worker.route, worker.job, worker.ready = None, b"", "", False
        return exited

    def _release(self, route: bytes) -> None:
        """A worker has finished its job; how its process ends no longer concerns that job."""
        for worker in self._workers.values():
            if worker.route == route:
                worker.job, worker.since = "", self._clock()

    def _start(self, worker: WorkerProcess) -> None:
        name = worker.device.replace(":", "-")
        request = {"address": self._endpoint.address, "secret": self._secret, "device": worker.device}
        try:
            self._log_folder.mkdir(parents=True, exist_ok=True)
            with (self._log_folder / f"worker-{name}.log").open("ab") as output:
                worker.process = start_child(WORKER_MODULE, request, output)
        except OSError as error:  # a full disk, or the limit of processes
            log.warning("worker not started", extra={"device": worker.device, "why": str(error)})
            self._backoff(worker)
            return
        worker.since = self._clock()
        log.info("worker started", extra={"device": worker.device, "worker": worker.process.pid})

    def _backoff(self, worker: WorkerProcess) -> None:
        """Delay the next start of a device's worker, longer with each failure in a row."""
        worker.start_after = self._clock() + min(2.0**worker.failures, LONGEST_BACKOFF_S)
        worker.failures += 1

    def _send(self, worker: WorkerProcess, order: Any) -> None:
        try:
            self.socket.send_multipart([worker.route, pack_order(self._secret, order)], zmq.NOBLOCK)
        except zmq.ZMQError as error:  # `reports` notices that the process ended
            log.warning("worker cannot be reached", extra={"device": worker.device, "why": str(error)})
