# SPDX-License-Identifier: GPL-3.0-or-later
"""The runner of a Ray cluster: each job is a detached actor with one GPU, reached through a bridge process.

Ray's own retries are off: every start of a job is an attempt that the job store counts, with its own fence. Jobs of a
lost node return to the queue; a node that was only cut off finds its fence raised.
"""

from __future__ import annotations

import importlib.util
import logging
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zmq

from dreamwright.shared.atomic import write_atomically

from ...errors import CheckpointError, ConfigError
from ...io.child_process import close_stdin, start_child
from .local_runner import LONGEST_BACKOFF_S
from .runner import WorkerExited
from .worker_endpoint import WorkerEndpoint
from .worker_protocol import (
    ActorFound,
    ActorLost,
    Connected,
    ConnectionFailed,
    DevicesAvailable,
    JobFinished,
    KillActor,
    Report,
    RunJob,
    StatusReport,
    Stop,
    Watch,
    pack_order,
    unpack_order,
)

log = logging.getLogger(__name__)

BRIDGE_MODULE = "dreamwright.backend.server.workers.ray_bridge"
CONNECT_TIMEOUT_S = 90.0  # of the first connection; Ray itself gives up after about 30 s
STOP_GRACE_S = 120.0  # for the current step, or the loading of a model, before an actor is killed
NAMESPACE_FILE = "ray-namespace"
NO_GPU = "jobs wait until a node with a GPU joins: on it, ray start --address=HOST:PORT"


@dataclass
class Assignment:
    """A job that an actor runs."""

    attempt: int
    device: str
    stop_mode: str = ""  # of a stop that was sent; a new bridge gets it again
    is_watched: bool = False  # as it was sent; a new bridge gets it again


def own_namespace(state: Path) -> str:
    """The Ray namespace of a state folder, created once: servers of one cluster never touch each other's actors.

    Raises CheckpointError when the file cannot be read or written.
    """
    path = state / NAMESPACE_FILE
    try:
        if not path.exists():
            state.mkdir(parents=True, exist_ok=True)
            write_atomically(path, f"dreamwright-{secrets.token_hex(8)}\n".encode("ascii"))
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise CheckpointError(f"cannot use {path}: {error.strerror}; choose another folder with --state") from error


def check_cluster(address: str) -> None:
    """Raises ConfigError for a malformed `--ray`, or when Ray is not installed."""
    if "://" in address or (address != "auto" and not address.rpartition(":")[2].isdecimal()):
        raise ConfigError(
            f"--ray is {address!r}; allowed is auto, or HOST:PORT of the head node as `ray start` prints it"
        )
    if importlib.util.find_spec("ray") is None:
        raise ConfigError('--ray needs Ray, which is not installed; install it with: pip install "dreamwright[ray]"')


class RayRunner:
    """A `Runner` on a cluster. Raises ConfigError when the cluster cannot be reached at the start; later it reconnects.

    `compute`: "cuda", or "cpu" for nodes that only declare GPUs.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        cluster: str,
        namespace: str,
        log_folder: Path,
        compute: str = "cuda",
        grace_s: float = STOP_GRACE_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_cluster(cluster)
        self._cluster = cluster
        self._secret = secrets.token_hex(32)
        self._endpoint = WorkerEndpoint(context, log_folder.parent)
        self.socket = self._endpoint.socket
        self._request = {
            "address": self._endpoint.address,
            "secret": self._secret,
            "cluster": cluster,
            "namespace": namespace,
            "compute": compute,
            "grace_s": grace_s,
        }
        self._log_folder, self._clock = log_folder, clock
        self._bridge: subprocess.Popen[bytes] | None = None
        self._route = b""
        self._connected = False
        self._failures, self._start_after = 0, 0.0
        self._devices: tuple[str, ...] = ()
        self._found: dict[str, tuple[int, str]] = {}  # (attempt, device) by job, as the current bridge reports them
        self._jobs: dict[str, Assignment] = {}
        self._early: list[Any] = []  # received before `reports` was called
        self._connect(connect_timeout_s)

    def _connect(self, timeout_s: float) -> None:
        self._start()
        end = time.monotonic() + timeout_s
        while not self._connected:
            gone = self._bridge is None or self._bridge.poll() is not None
            self.socket.poll(1000 if gone else 200)  # its last report may still be on its way
            for report in self._receive():
                if isinstance(report, ConnectionFailed):
                    self.close()
                    raise ConfigError(report.message)
                if not isinstance(report, Connected):
                    self._early.append(report)
            if not self._connected and (gone or time.monotonic() > end):
                self.close()
                raise ConfigError(f"no connection to the Ray cluster at {self._cluster}; see {self._log}")
        if not self._devices:
            log.warning("Ray cluster without a GPU", extra={"cluster": self._cluster, "advice": NO_GPU})

    @property
    def _log(self) -> Path:
        return self._log_folder / "ray-bridge.log"

    @property
    def survives_server(self) -> bool:
        """True: actors are detached."""
        return True

    @property
    def devices(self) -> tuple[str, ...]:
        """NODE/0, NODE/1 and so on for each GPU of the living nodes; empty while there is no connection."""
        return self._devices if self._connected else ()

    def reattach(self, running: Mapping[str, int]) -> set[str]:
        """Take over the living actors of the newest attempts; kill this server's other actors."""
        for job, (attempt, device) in self._found.items():
            if running.get(job) == attempt:
                self._jobs[job] = Assignment(attempt, device)
            else:
                self._send(KillActor(job, attempt))
        return set(self._jobs)

    def idle_devices(self) -> list[str]:
        """GPUs that run no job of this server."""
        busy = {assignment.device for assignment in self._jobs.values()}
        return [device for device in self.devices if device not in busy]

    def assign(self, device: str, order: RunJob) -> None:
        """Start an actor on the device's node."""
        self._jobs[order.job] = Assignment(order.attempt, device)
        # Nodes share the storage, but not the symbolic links by which this machine may reach it.
        self._send(replace(order, device=device, folder=str(Path(order.folder).resolve())))

    def stop(self, job: str, mode: str) -> None:
        """The actor checks after each step; one that does not stop is killed after the grace period."""
        if job in self._jobs:
            self._jobs[job].stop_mode = mode
            self._send(Stop(job, mode))

    def watch(self, job: str, is_watched: bool) -> None:
        """Tell the actor whether its job's live meshes are wanted."""
        if job in self._jobs:
            self._jobs[job].is_watched = is_watched
            self._send(Watch(job, is_watched))

    def kill(self, job: str) -> None:
        """Kill the actor of a job. Does nothing without a connection, as the actor's state is then unknown."""
        assignment = self._jobs.get(job)
        if self._connected and assignment is not None:
            self._send(KillActor(job, assignment.attempt))
            self._early.append(ActorLost(job, assignment.attempt, "its process was killed"))

    def reports(self) -> Iterator[Report | WorkerExited]:
        """Reports of the actors since the last call. Starts a new bridge when the last one has ended."""
        early, self._early = self._early, []
        for report in (*early, *self._receive()):
            if isinstance(report, ConnectionFailed):
                log.warning("no connection to the Ray cluster", extra={"why": report.message})
                for job, assignment in self._jobs.items():
                    yield StatusReport(job, "", f"{report.message}; the server keeps trying", assignment.attempt)
            elif isinstance(report, Connected):
                yield from self._reconcile()
            else:
                yield from self._pass_on(report)
        if self._bridge is not None and self._bridge.poll() is not None:
            log.warning(
                "bridge to the Ray cluster ended", extra={"status": self._bridge.returncode, "its_log": str(self._log)}
            )
            self._drop_bridge()
            self._start_after = self._clock() + min(2.0**self._failures, LONGEST_BACKOFF_S)
            self._failures += 1
        if self._bridge is None and self._clock() >= self._start_after:
            self._start()

    def _receive(self) -> Iterator[Any]:
        """Reports of actors, ActorLost, ConnectionFailed and Connected; devices and found actors are kept."""
        while True:
            try:
                route, data = self.socket.recv_multipart(zmq.NOBLOCK)
                report = unpack_order(self._secret, data)
            except zmq.Again:
                return
            except ValueError as error:  # ProtocolError, or another program's message with another number of frames
                # The first words only: what follows may quote a field.
                log.warning("message on the bridge's port ignored", extra={"why": str(error).partition(" is ")[0]})
                continue
            if isinstance(report, DevicesAvailable):
                self._devices = report.devices
            elif isinstance(report, ActorFound):
                self._found[report.job] = report.attempt, report.device
            else:
                if isinstance(report, Connected):
                    self._route, self._connected, self._failures = route, True, 0
                yield report

    def _pass_on(self, report: Report | ActorLost) -> Iterator[Report | WorkerExited]:
        assignment = self._jobs.get(report.job)
        is_current = assignment is not None and assignment.attempt == report.attempt
        if isinstance(report, ActorLost):
            if is_current:
                del self._jobs[report.job]
                yield WorkerExited(report.job, 0, report.attempt, report.reason)
            return
        if is_current:
            yield report
        if isinstance(report, JobFinished):
            # Only after the server has committed the result: until then the actor could report it again.
            self._send(KillActor(report.job, report.attempt))
            if is_current:
                del self._jobs[report.job]

    def _reconcile(self) -> Iterator[WorkerExited]:
        """After a new bridge has connected: compare the assigned jobs with the actors that the cluster has."""
        for job, assignment in list(self._jobs.items()):
            if self._found.get(job, (0, ""))[0] == assignment.attempt:
                if assignment.stop_mode:
                    self._send(Stop(job, assignment.stop_mode))
                self._send(Watch(job, assignment.is_watched))
            else:
                del self._jobs[job]
                reason = "the cluster lost it while the server had no connection to it"
                yield WorkerExited(job, 0, assignment.attempt, reason)
        for job, (attempt, _) in self._found.items():
            if job not in self._jobs:
                self._send(KillActor(job, attempt))

    def close(self, grace_s: float = 5.0) -> None:
        """Disconnect from the cluster; the actors continue."""
        if self._bridge is not None:
            close_stdin(self._bridge)
            try:
                self._bridge.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._bridge.kill()
                self._bridge.wait()
            self._bridge = None
        self._endpoint.close()

    def _start(self) -> None:
        self._found = {}
        try:
            self._log_folder.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab") as output:
                # In the same session: the bridge ignores SIGINT itself.
                self._bridge = start_child(BRIDGE_MODULE, self._request, output, new_session=False)
        except OSError as error:  # a full disk, or the limit of processes
            log.warning("bridge to the Ray cluster not started", extra={"why": str(error)})

    def _drop_bridge(self) -> None:
        if self._bridge is not None:
            close_stdin(self._bridge)
        self._bridge, self._route, self._connected, self._devices = None, b"", False, ()

    def _send(self, order: Any) -> None:
        if self._route:
            try:
                self.socket.send_multipart([self._route, pack_order(self._secret, order)], zmq.NOBLOCK)
            except zmq.ZMQError as error:  # `reports` notices that the bridge ended
                log.warning("bridge to the Ray cluster cannot be reached", extra={"why": str(error)})
