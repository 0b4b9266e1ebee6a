# SPDX-License-Identifier: GPL-3.0-or-later
"""Worker processes, one a device: started when there is work, given jobs, replaced when they die."""

from __future__ import annotations

import json
import logging
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from dreamwright.shared import limits
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.messages import JobSummary

from .runner import WorkerExited
from .worker_protocol import JobFinished, Ready, Stop, RunJob, pack_order, unpack_order

log = logging.getLogger(__name__)

REPORTS = 1000  # taken in at once
START_S = 600.0  # for a worker to be ready for its next job; one that takes longer is ended and started anew
# Ctrl-C in a terminal reaches the server alone, which then lets its workers write a checkpoint. A session and not only a process
# group: a group that loses its parent is sent SIGHUP when one of it stands still.
APART: dict[str, Any] = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if sys.platform == "win32"
    else {"start_new_session": True}
)
LONGEST_REST_S = 60.0  # before a worker that dies without having worked is started again; 1 s at first, doubling


@dataclass
class WorkerProcess:
    """One device's worker process."""

    device: str
    process: subprocess.Popen[bytes] | None = None
    route: bytes = b""
    job: str = ""  # what it works on
    ready: bool = False
    since: float = 0.0  # when it was started, or ended its last job
    failures: int = 0  # deaths in a row before it was ready
    rests_until: float = 0.0  # not started again before this moment


class LocalRunner:
    """The `Runner` of this machine: talks with the workers over a loopback port of its own."""

    def __init__(
        self,
        context: zmq.Context,
        devices: tuple[str, ...],
        log_folder: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._secret = secrets.token_hex(32)
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.MAXMSGSIZE, 2 * limits.REPLY_BYTES)  # a frame; the largest is a picture
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self._address = f"tcp://127.0.0.1:{port}"
        self._hands = {device: WorkerProcess(device) for device in devices}
        self._log_folder, self._clock = log_folder, clock

    @property
    def survives_server(self) -> bool:
        """No: workers end with their server."""
        return False

    @property
    def devices(self) -> tuple[str, ...]:
        """All devices, which stay the same while the server runs."""
        return tuple(self._hands)

    def reattach(self, running: Mapping[str, int]) -> set[str]:
        """Nothing: workers end with their server, and a slow one is kept away from its job by the job's lock."""
        return set()

    def idle_devices(self) -> list[str]:
        """Devices without a job; a worker is started for them where none runs."""
        for hand in self._hands.values():
            if hand.process is None and self._clock() >= hand.rests_until:
                self._start(hand)
        return [hand.device for hand in self._hands.values() if hand.ready and not hand.job]

    def assign(self, device: str, job: JobSummary, folder: Path) -> None:
        """Put a device to work on a job."""
        hand = self._hands[device]
        hand.job, hand.ready = job.job, False
        self._send(hand, RunJob(job, str(folder)))

    def stop(self, job: str, why: str) -> None:
        """Tell the worker of a job to stop it ("pause" or "cancel")."""
        for hand in self._hands.values():
            if hand.job == job:
                self._send(hand, Stop(job, why))

    def kill(self, job: str) -> None:
        """End the worker of a job at once, wherever it is; `reports` tells of its death."""
        for hand in self._hands.values():
            if hand.job == job and hand.process is not None:
                hand.process.kill()

    def reports(self) -> Iterator[Any]:
        """What the workers said since the last call, and `WorkerExited` for each that is no more."""
        for _ in range(REPORTS):  # whoever is on this machine can send here, and must not keep the server from its work
            try:
                route, data = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            except ValueError:
                continue  # a stranger's message of another shape
            try:
                report = unpack_order(self._secret, data)
            except ProtocolError as error:
                log.warning(
                    "message on the workers' port ignored", extra={"why": str(error).partition(" is ")[0]}
                )  # never what a field holds
                continue
            if isinstance(report, Ready):
                hand = self._hands.get(report.device)
                if hand is not None:
                    hand.route, hand.ready, hand.job, hand.failures = route, True, "", 0
            else:
                if isinstance(report, JobFinished):
                    self._done(route)
                yield report
        for hand in self._hands.values():
            if hand.process is not None and not hand.job and not hand.ready and self._clock() - hand.since > START_S:
                log.warning(
                    "worker not ready in time; it is ended and started anew",
                    extra={"device": hand.device, "after_s": START_S},
                )
                hand.process.kill()
            status = None if hand.process is None else hand.process.poll()
            if status is not None:
                died = WorkerExited(hand.job, status)
                _close_stdin(hand.process)
                if not hand.route:  # it never got as far as to be ready: a broken installation, no memory
                    self._rest(hand)
                hand.process, hand.route, hand.job, hand.ready = None, b"", "", False
                yield died

    def close(self, grace_s: float = 5.0) -> None:
        """End all workers: first by closing their stdin, then, `grace_s` later for all of them together, by force."""
        end = time.monotonic() + grace_s
        for hand in self._hands.values():
            if hand.process is not None:
                _close_stdin(hand.process)
        for hand in self._hands.values():
            if hand.process is not None:
                try:
                    hand.process.wait(max(0.0, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    hand.process.kill()
                    hand.process.wait()
        self.socket.close(0)

    def _done(self, route: bytes) -> None:
        """Its worker has ended a job: what becomes of the process is no longer that job's concern."""
        for hand in self._hands.values():
            if hand.route == route:
                hand.job, hand.since = "", self._clock()

    def _start(self, hand: WorkerProcess) -> None:
        name = hand.device.replace(":", "-")
        try:
            self._log_folder.mkdir(parents=True, exist_ok=True)
            with (self._log_folder / f"worker-{name}.log").open("ab") as output:
                hand.process = subprocess.Popen(
                    [sys.executable, "-m", "dreamwright.backend.server.workers.worker"],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    **APART,
                )
        except OSError as error:  # a full disk, or no process left
            log.warning("worker not started", extra={"device": hand.device, "why": str(error)})
            self._rest(hand)
            return
        hand.since = self._clock()
        told = {"address": self._address, "secret": self._secret, "device": hand.device}
        # The secret goes through a pipe: an argument or a variable could be read by other users of the machine.
        try:
            hand.process.stdin.write(json.dumps(told).encode() + b"\n")
            hand.process.stdin.flush()
        except BrokenPipeError:
            log.warning("worker died at once", extra={"device": hand.device})  # `reports` sees it
        log.info("worker started", extra={"device": hand.device, "worker": hand.process.pid})

    def _rest(self, hand: WorkerProcess) -> None:
        """Start this device's worker later, ever later while it keeps failing."""
        hand.rests_until = self._clock() + min(2.0**hand.failures, LONGEST_REST_S)
        hand.failures += 1

    def _send(self, hand: WorkerProcess, order: Any) -> None:
        try:
            self.socket.send_multipart([hand.route, pack_order(self._secret, order)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            log.warning(
                "worker cannot be reached", extra={"device": hand.device, "why": str(error)}
            )  # `reports` sees its death


def _close_stdin(process: subprocess.Popen[bytes]) -> None:
    """Close our end of a worker's stdin, also when what was buffered for it can no longer be written."""
    try:
        process.stdin.close()
    except BrokenPipeError:
        log.info("worker had gone before its stdin was closed", extra={"worker": process.pid})
