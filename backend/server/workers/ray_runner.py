# SPDX-License-Identifier: GPL-3.0-or-later
"""The `Runner` of a Ray cluster: each job is a detached actor with one GPU, reached through an envoy process (`ray_envoy`).

Ray's own retries are off: each start of a job is an attempt of the ledger's, with a fence of its own. What a lost node was
making goes back to the ledger's queue, and a node that was only cut off finds its fence raised.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from dreamwright.shared.messages import JobSummary

from ...errors import CheckpointError, ConfigError
from .local_runner import LONGEST_REST_S
from .runner import WorkerExited
from .worker_protocol import (
    Connected,
    JobFinished,
    ActorFound,
    ActorLost,
    StatusReport,
    KillActor,
    Report,
    DevicesAvailable,
    Stop,
    ConnectionFailed,
    RunJob,
    pack_order,
    unpack_order,
)  # fmt: skip

log = logging.getLogger(__name__)

PATIENCE_S = 90.0  # for the first connection; Ray itself gives up after some 30 s
STOP_GRACE_S = 120.0  # for the step in hand, or the loading of a model, before force
NAMESPACE_FILE = "ray-namespace"


@dataclass
class Assignment:
    """A job that an actor has."""

    attempt: int
    device: str
    why: str = ""  # it was told to stop; a new envoy must tell it again


def own_namespace(state: Path) -> str:
    """The Ray namespace of a state folder, made at first: servers of one cluster never touch each other's actors."""
    path = state / NAMESPACE_FILE
    try:
        if not path.exists():
            state.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".part")
            temporary.write_text(f"dreamwright-{secrets.token_hex(8)}\n", encoding="ascii")
            os.replace(temporary, path)
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise CheckpointError(f"cannot use {path}: {error.strerror}; choose another folder with --state") from error


def check_cluster(address: str) -> None:
    """Raises ConfigError for what `--ray` cannot be, or where Ray is not installed."""
    if "://" in address or (address != "auto" and not address.rpartition(":")[2].isdecimal()):
        raise ConfigError(
            f"--ray is {address!r}; allowed is auto, or HOST:PORT of the head node as `ray start` prints it"
        )
    if importlib.util.find_spec("ray") is None:
        raise ConfigError('--ray needs Ray, which is not installed; install it with: pip install "dreamwright[ray]"')


class RayRunner:
    """Raises ConfigError when the cluster cannot be reached at the start; later it waits for it to come back.

    `compute`: "cuda", or "cpu" for nodes that only say they have GPUs.
    """

    def __init__(
        self,
        context: zmq.Context,
        cluster: str,
        namespace: str,
        log_folder: Path,
        compute: str = "cuda",
        grace_s: float = STOP_GRACE_S,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_cluster(cluster)
        self._secret = secrets.token_hex(32)
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self._told = {
            "address": f"tcp://127.0.0.1:{port}",
            "secret": self._secret,
            "cluster": cluster,
            "namespace": namespace,
        }
        self._told |= {"compute": compute, "grace_s": grace_s}
        self._log_folder, self._clock = log_folder, clock
        self._envoy: subprocess.Popen[bytes] | None = None
        self._route = b""
        self._connected = False
        self._failures, self._rests_until = 0, 0.0
        self._slots: tuple[str, ...] = ()
        self._found: dict[str, tuple[int, str]] = {}  # (attempt, device) by job, as the present envoy tells them
        self._jobs: dict[str, Assignment] = {}
        self._early: list[Any] = []  # what was said before anybody asked for reports
        self._meet(patience_s)

    def _meet(self, patience_s: float) -> None:
        self._start()
        end = time.monotonic() + patience_s
        while not self._connected:
            gone = self._envoy is None or self._envoy.poll() is not None
            self.socket.poll(1000 if gone else 200)  # its last words may still be on their way
            for report in self._hear():
                if isinstance(report, ConnectionFailed):
                    self.close()
                    raise ConfigError(report.message)
                if not isinstance(report, Connected):
                    self._early.append(report)
            if not self._connected and (gone or time.monotonic() > end):
                cluster = self._told["cluster"]
                self.close()
                raise ConfigError(f"no connection to the Ray cluster at {cluster}; {self._log} says more")
        if not self._slots:
            log.warning("Ray cluster without a GPU", extra={"cluster": self._told["cluster"], "advice": NO_GPU})

    @property
    def _log(self) -> Path:
        return self._log_folder / "ray-envoy.log"

    @property
    def survives_server(self) -> bool:
        """Actors are detached."""
        return True

    @property
    def devices(self) -> tuple[str, ...]:
        """A name for each GPU of the cluster's living nodes, NODE/0 and so on; none while there is no connection."""
        return self._slots if self._connected else ()

    def reattach(self, running: Mapping[str, int]) -> set[str]:
        """Take up what living actors are making; other actors of this server's are ended."""
        for job, (attempt, device) in self._found.items():
            if running.get(job) == attempt:
                self._jobs[job] = Assignment(attempt, device)
            else:
                self._send(KillActor(job, attempt))
        return set(self._jobs)

    def idle_devices(self) -> list[str]:
        """GPUs that have no job of this server's."""
        taken = {given.device for given in self._jobs.values()}
        return [device for device in self.devices if device not in taken]

    def assign(self, device: str, job: JobSummary, folder: Path) -> None:
        """Start an actor on the device's node."""
        self._jobs[job.job] = Assignment(job.attempt, device)
        self._send(RunJob(job, str(folder.resolve())))  # nodes have the shared storage, but no links that lead to it here

    def stop(self, job: str, why: str) -> None:
        """The actor looks after each step; one that does not look is ended after a grace."""
        if job in self._jobs:
            self._jobs[job].why = why
            self._send(Stop(job, why))

    def kill(self, job: str) -> None:
        """End the actor without a word of its own; only while there is a connection, without which nothing is known of it."""
        given = self._jobs.get(job)
        if self._connected and given is not None:
            self._send(KillActor(job, given.attempt))
            self._early.append(ActorLost(job, given.attempt, "its process was ended"))

    def reports(self) -> Iterator[Report | WorkerExited]:
        """What the actors said; also starts another envoy where the last one ended."""
        early, self._early = self._early, []
        for report in (*early, *self._hear()):
            if isinstance(report, ConnectionFailed):
                log.warning("no connection to the Ray cluster", extra={"why": report.message})
                for job, given in self._jobs.items():
                    yield StatusReport(job, "", f"{report.message}; the server goes on trying", given.attempt)
            elif isinstance(report, Connected):
                yield from self._compare()
            else:
                yield from self._pass_on(report)
        if self._envoy is not None and self._envoy.poll() is not None:
            log.warning(
                "envoy to the Ray cluster ended", extra={"status": self._envoy.returncode, "its_log": str(self._log)}
            )
            self._drop_envoy()
            self._rests_until = self._clock() + min(2.0**self._failures, LONGEST_REST_S)
            self._failures += 1
        if self._envoy is None and self._clock() >= self._rests_until:
            self._start()

    def _hear(self) -> Iterator[Any]:
        """Reports of actors, ActorLost, ConnectionFailed, Connected; the rest is noted here."""
        while True:
            try:
                route, data = self.socket.recv_multipart(zmq.NOBLOCK)
                report = unpack_order(self._secret, data)
            except zmq.Again:
                return
            except ValueError as error:  # ProtocolError, or a stranger's message of another shape
                log.warning(
                    "message on the envoy's port ignored", extra={"why": str(error).partition(" is ")[0]}
                )  # never what a field holds
                continue
            if isinstance(report, DevicesAvailable):
                self._slots = report.devices
            elif isinstance(report, ActorFound):
                self._found[report.job] = report.attempt, report.device
            else:
                if isinstance(report, Connected):
                    self._route, self._connected, self._failures = route, True, 0
                yield report

    def _pass_on(self, report: Report | ActorLost) -> Iterator[Report | WorkerExited]:
        given = self._jobs.get(report.job)
        current = given is not None and given.attempt == report.attempt
        if isinstance(report, ActorLost):
            if current:
                del self._jobs[report.job]
                yield WorkerExited(report.job, 0, report.attempt, report.reason)
            return
        if current:
            yield report
        if isinstance(report, JobFinished):
            # Only now, when the server has written the end down: until then the actor could tell it again.
            self._send(KillActor(report.job, report.attempt))
            if current:
                del self._jobs[report.job]

    def _compare(self) -> Iterator[WorkerExited]:
        """After another envoy has connected: which of our jobs does the cluster still have?"""
        for job, given in list(self._jobs.items()):
            if self._found.get(job, (0, ""))[0] == given.attempt:
                if given.why:
                    self._send(Stop(job, given.why))
            else:
                del self._jobs[job]
                yield WorkerExited(job, 0, given.attempt, "the cluster lost it while the server had no connection to it")
        for job, (attempt, _) in self._found.items():
            if job not in self._jobs:
                self._send(KillActor(job, attempt))

    def close(self, grace_s: float = 5.0) -> None:
        """Let go of the cluster; the actors go on."""
        if self._envoy is not None:
            _close_stdin(self._envoy)
            try:
                self._envoy.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._envoy.kill()
                self._envoy.wait()
            self._envoy = None
        self.socket.close(0)

    def _start(self) -> None:
        self._found = {}
        try:
            self._log_folder.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab") as output:
                self._envoy = subprocess.Popen(
                    [sys.executable, "-m", "dreamwright.backend.server.workers.ray_bridge"],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                )
            self._envoy.stdin.write(json.dumps(self._told).encode() + b"\n")  # a pipe, since it holds the secret
            self._envoy.stdin.flush()
        except OSError as error:  # a full disk, no process left, or one that ended at once
            log.warning("envoy to the Ray cluster not started", extra={"why": str(error)})

    def _drop_envoy(self) -> None:
        _close_stdin(self._envoy)
        self._envoy, self._route, self._connected, self._slots = None, b"", False, ()

    def _send(self, order: Any) -> None:
        if self._route:
            try:
                self.socket.send_multipart([self._route, pack_order(self._secret, order)], zmq.NOBLOCK)
            except zmq.ZMQError as error:
                log.warning(
                    "envoy to the Ray cluster cannot be reached", extra={"why": str(error)}
                )  # `reports` sees its end


NO_GPU = "jobs wait until a node with a GPU joins: on it, ray start --address=HOST:PORT"


def _close_stdin(process: subprocess.Popen[bytes]) -> None:
    try:
        process.stdin.close()
    except BrokenPipeError:
        log.info("the envoy had gone before its stdin was closed")
