# SPDX-License-Identifier: GPL-3.0-or-later
"""The bridge to a Ray cluster: a process of its own, because Ray ends a process that has lost its head node.

    python -m dreamwright.backend.server.workers.ray_bridge      (started by the server; stdin line 1: the request)

It keeps no state that its successor needs: actors are detached and are found again by their names.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from typing import Any

import ray
import zmq
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dreamwright.shared import __version__
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.limits import MESSAGE_CHARACTERS, NAME_CHARACTERS
from dreamwright.shared.numbers import number_text

from ...errors import one_line
from .ray_actor import NO_SECRET, JobActor
from .worker_protocol import (
    ActorFound,
    ActorLost,
    Connected,
    ConnectionFailed,
    DevicesAvailable,
    JobFinished,
    KillActor,
    RunJob,
    StatusReport,
    Stop,
    Watch,
    pack_order,
    unpack_order,
)

POLL_S = 0.05  # between two polls of the actors; orders of the server are handled at once
LONG_POLL_S = 5.0  # that an actor waits for a report before it returns an empty answer
NODES_INTERVAL_S = 2.0  # between two looks at the cluster's nodes
UNPLACED_S = 30.0  # before a job reports that its GPU is in use by something else
CONNECT_TIMEOUT_S = 10.0  # for the head node to accept a connection
UNSTARTED_GRACE_S = 10.0  # for an actor that is told to stop before it has answered once


@dataclass
class ActorHandle:
    """One actor of the cluster."""

    job: str
    attempt: int
    device: str
    actor: Any
    started_at: float
    pending: Any = None  # the poll that is under way
    after: int = 0  # reports up to this number have been forwarded
    answered: bool = False  # it has answered a poll, so it lives
    reported_waiting: bool = False
    stop_mode: str = ""  # of a stop that it has not reacted to yet
    kill_at: float = 0.0  # when it is killed if it does not react

    @property
    def node(self) -> str:
        """Name of the node that it was placed on."""
        return self.device.rpartition("/")[0]


def actor_name(job: str, attempt: int, device: str) -> str:
    """An actor's name holds everything that another bridge must know about it."""
    return f"{job} {attempt} {device}"


def parse_name(name: str) -> tuple[str, int, str]:
    """(job, attempt, device). Raises ValueError."""
    job, attempt, device = name.split(" ", 2)
    return job, int(attempt), device


def gpu_devices(nodes: list[dict[str, Any]]) -> dict[str, str]:
    """Node ID by device for each GPU of the living nodes: NODE/0, NODE/1 … A node that comes back keeps its names."""
    alive = [node for node in nodes if node["Alive"] and node["Resources"].get("GPU", 0) >= 1]
    count = Counter(node["NodeName"] for node in alive)
    devices: dict[str, str] = {}
    for node in sorted(alive, key=lambda node: (node["NodeName"], node["NodeID"])):
        name = node["NodeName"] if count[node["NodeName"]] == 1 else f"{node['NodeName']}#{node['NodeID'][:8]}"
        prefix = name[: NAME_CHARACTERS - 10]
        devices |= {f"{prefix}/{index}": node["NodeID"] for index in range(int(node["Resources"]["GPU"]))}
    return devices


class RayBridge:
    """Forwards orders of the server to actors, and their reports to the server."""

    def __init__(self, address: str, secret: str, compute: str, grace_s: float) -> None:
        self._secret, self._compute, self._grace_s = secret, compute, grace_s
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 2000)
        self._socket.connect(address)
        self._actor_class = ray.remote(JobActor)
        self._actors: dict[tuple[str, int], ActorHandle] = {}
        self._devices: dict[str, str] | None = None  # node ID by device; None before the first look
        self._nodes_at = 0.0

    def send(self, message: Any) -> None:
        """Send a report to the server."""
        self._socket.send(pack_order(self._secret, message))

    def connect(self, cluster: str, namespace: str) -> None:
        """Connect to the cluster; report its devices and this server's actors. Raises what Ray raises, and OSError."""
        if cluster != "auto":
            host, _, port = cluster.rpartition(":")
            # Ray itself would try for minutes and not give the reason.
            socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
        ray.init(address=cluster, namespace=namespace, log_to_driver=False, configure_logging=False)
        for name in ray.util.list_named_actors():
            job, attempt, device = parse_name(name)
            try:
                actor = ray.get_actor(name)
            except ValueError:  # it ended just now
                continue
            self._actors[job, attempt] = ActorHandle(job, attempt, device, actor, time.monotonic())
            self.send(ActorFound(job, attempt, device))
        self._report_devices()
        self.send(Connected())

    def step(self) -> None:
        """One round: orders, nodes, reports of the actors, actors that do not stop."""
        self._socket.poll(int(1000 * POLL_S))
        while self._socket.poll(0):
            self._handle_order(unpack_order(self._secret, self._socket.recv()))
        if time.monotonic() >= self._nodes_at:
            self._report_devices()
        self._poll_actors()
        now = time.monotonic()
        for handle in list(self._actors.values()):
            if handle.stop_mode and now >= handle.kill_at:
                self._kill_unresponsive(handle)
            elif not handle.answered and not handle.reported_waiting and now - handle.started_at > UNPLACED_S:
                handle.reported_waiting = True
                message = f"waits for a GPU of the cluster's node {handle.node}, which something else may use"
                self.send(StatusReport(handle.job, "", message, handle.attempt))

    def _report_devices(self) -> None:
        self._nodes_at = time.monotonic() + NODES_INTERVAL_S
        devices = gpu_devices(ray.nodes())
        if devices != self._devices:
            self.send(DevicesAvailable(tuple(devices)))
            self._devices = devices

    def _handle_order(self, order: Any) -> None:
        if isinstance(order, RunJob):
            self._start(order)
        elif isinstance(order, Stop):
            for handle in self._actors.values():
                if handle.job == order.job:
                    handle.actor.stop.remote(order.mode)
                    # An actor that has not started has nothing to lose.
                    grace_s = self._grace_s if handle.answered else min(self._grace_s, UNSTARTED_GRACE_S)
                    handle.stop_mode, handle.kill_at = order.mode, time.monotonic() + grace_s
        elif isinstance(order, Watch):
            for handle in self._actors.values():
                if handle.job == order.job:
                    handle.actor.watch.remote(order.is_watched)
        elif isinstance(order, KillActor):
            killed = self._actors.pop((order.job, order.attempt), None)
            if killed is not None:
                ray.kill(killed.actor)

    def _start(self, order: RunJob) -> None:
        job, attempt, device = order.job, order.attempt, order.device
        node = (self._devices or {}).get(device)
        if node is None:
            self.send(ActorLost(job, attempt, f"the cluster's device {device} went away"))
            return
        placement = NodeAffinitySchedulingStrategy(node, soft=False)
        actor = self._actor_class.options(
            name=actor_name(job, attempt, device), lifetime="detached", num_gpus=1, num_cpus=0, max_restarts=0,
            max_concurrency=8, scheduling_strategy=placement,
        ).remote(job, attempt, pack_order(NO_SECRET, order), self._compute, __version__)  # fmt: skip
        self._actors[job, attempt] = ActorHandle(job, attempt, device, actor, time.monotonic())

    def _poll_actors(self) -> None:
        polls = {}
        for handle in self._actors.values():
            if handle.pending is None:
                handle.pending = handle.actor.poll.remote(handle.after, LONG_POLL_S)
            polls[handle.pending] = handle
        done = ray.wait(list(polls), num_returns=len(polls), timeout=0)[0] if polls else []
        for answer in done:
            handle = polls[answer]
            handle.pending = None
            try:
                handle.after, stop_seen, reports = ray.get(answer, timeout=30.0)
            except (ActorUnavailableError, GetTimeoutError):  # it may come back; Ray reports later whether it died
                continue
            except RayError as error:  # it died, or its node is gone
                self._on_actor_error(handle, error)
                continue
            handle.answered = True
            if stop_seen:
                handle.stop_mode = ""
            for report in reports:
                self._forward(handle, report)

    def _forward(self, handle: ActorHandle, data: bytes) -> None:
        try:
            report = unpack_order(NO_SECRET, data)
        except ProtocolError as error:
            print(f"a report of job {handle.job} cannot be read: {error}", file=sys.stderr, flush=True)
            return
        self.send(report)

    def _on_actor_error(self, handle: ActorHandle, error: RayError) -> None:
        del self._actors[handle.job, handle.attempt]
        ray.kill(handle.actor)  # if it lives after all, it must not keep its GPU
        job, attempt = handle.job, handle.attempt
        print(f"job {job}, attempt {attempt}, on {handle.device}: {error}", file=sys.stderr, flush=True)
        self._report_devices()
        if getattr(error, "actor_init_failed", False):  # its constructor cannot fail, so its code could not be loaded
            message = (
                f"the cluster's node {handle.node} cannot load dreamwright ({last_line(error)}); "
                f"install dreamwright[ray] {__version__} there, for the Python that its `ray start` runs with, "
                "then send the job again"
            )
            self.send(JobFinished(job, "failed", message[:MESSAGE_CHARACTERS], False, attempt))
        elif handle.device not in (self._devices or {}):
            self.send(ActorLost(job, attempt, f"the cluster's node {handle.node} was lost"))
        else:
            self.send(ActorLost(job, attempt, f"its process on the cluster's node {handle.node} ended"))

    def _kill_unresponsive(self, handle: ActorHandle) -> None:
        """Kill an actor that did not stop in time; its checkpoint keeps what was done."""
        del self._actors[handle.job, handle.attempt]
        ray.kill(handle.actor)
        how, rest = (
            ("paused", "it continues from its last checkpoint")
            if handle.stop_mode == "pause"
            else ("cancelled", "there is no mesh")
        )
        message = f"it did not stop within {number_text(self._grace_s)} s, so its process was killed; {rest}"
        self.send(JobFinished(handle.job, how, message, False, handle.attempt))


def last_line(error: BaseException) -> str:
    """The last line of a traceback from another machine, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


def explain(cluster: str, error: Exception) -> str:
    """Why there is no connection to a cluster, and what to do."""
    if "Version mismatch" in str(error):
        details = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
        return (
            f"the Ray cluster at {cluster} has other versions than this server: {details[:600]}; "
            "install the same Ray and Python on all machines"
        )
    return (
        f"no Ray cluster answers at {cluster} ({one_line(error)}); start one with `ray start --head`, let this machine "
        "join it with `ray start --address=HOST:PORT --num-gpus=0`, and set RAY_AUTH_MODE and its token as there"
    )


def end_with_server() -> None:
    """End when the server closes its end of stdin; the actors continue."""
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    """Serve the server that started this process until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then ends this process
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_server, daemon=True).start()
    bridge = RayBridge(request["address"], request["secret"], request["compute"], request["grace_s"])
    try:
        bridge.connect(request["cluster"], request["namespace"])
    except Exception as error:  # Ray raises RuntimeError, ConnectionError, ValueError and errors of gRPC
        traceback.print_exc()
        bridge.send(ConnectionFailed(explain(request["cluster"], error)[:MESSAGE_CHARACTERS]))
        sys.exit(1)
    while True:
        bridge.step()


if __name__ == "__main__":
    main()
