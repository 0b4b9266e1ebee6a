# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's envoy to a Ray cluster: a process of its own, since Ray ends the process that has lost its head node.

    python -m dreamwright.backend.server.workers.ray_bridge      (the server starts it; its first line on stdin says where to report)

It keeps nothing that a successor needs: actors are detached and found again by their names.
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

from ...errors import one_line
from .ray_actor import NO_SECRET, JobActor
from .worker_protocol import (
    Connected,
    JobFinished,
    ActorFound,
    ActorLost,
    StatusReport,
    KillActor,
    DevicesAvailable,
    Stop,
    ConnectionFailed,
    RunJob,
    pack_order,
    unpack_order,
)

TURN_S = 0.05  # between two looks at the actors; a word of the server's is heard at once
LISTEN_S = 5.0  # that an actor holds a question when it has nothing to say
NODES_S = 2.0  # between two looks at which nodes there are
UNPLACED_S = 30.0  # before a job says that its GPU is taken by something else

REACH_S = 10.0  # for the head node to take a connection
UNBEGUN_S = 10.0  # for an actor that was told to stop before it was heard of


@dataclass
class ActorHandle:
    """One actor."""

    job: str
    attempt: int
    device: str
    actor: Any
    given_at: float
    answer: Any = None  # the question that is under way
    after: int = 0  # reports up to this number have been passed on
    answered: bool = False  # it lives
    complained: bool = False
    why: str = ""  # it was told to stop
    force_at: float = 0.0  # when it is ended by force, should it not heed


def actor_name(job: str, attempt: int, device: str) -> str:
    """An actor's name says all that another envoy must know of it."""
    return f"{job} {attempt} {device}"


def parse_name(name: str) -> tuple[str, int, str]:
    """(job, attempt, device). Raises ValueError."""
    job, attempt, device = name.split(" ", 2)
    return job, int(attempt), device


def slots_of(nodes: list[dict[str, Any]]) -> dict[str, str]:
    """Node ID by device, for each GPU of each living node: NODE/0, NODE/1, … A node that comes back has the same names."""
    alive = [node for node in nodes if node["Alive"] and node["Resources"].get("GPU", 0) >= 1]
    named = Counter(node["NodeName"] for node in alive)
    slots = {}
    for node in sorted(alive, key=lambda node: (node["NodeName"], node["NodeID"])):
        name = node["NodeName"] if named[node["NodeName"]] == 1 else f"{node['NodeName']}#{node['NodeID'][:8]}"
        slots |= {
            f"{name[: NAME_CHARACTERS - 10]}/{index}": node["NodeID"] for index in range(int(node["Resources"]["GPU"]))
        }
    return slots


class RayBridge:
    """Passes orders to actors, and their reports to the server."""

    def __init__(self, address: str, secret: str, compute: str, grace_s: float) -> None:
        self._secret, self._compute, self._grace_s = secret, compute, grace_s
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 2000)
        self._socket.connect(address)
        self._kind = ray.remote(JobActor)
        self._hands: dict[tuple[str, int], ActorHandle] = {}
        self._slots: dict[str, str] | None = None  # not looked at yet
        self._nodes_at = 0.0

    def say(self, message: Any) -> None:
        """Report to the server."""
        self._socket.send(pack_order(self._secret, message))

    def connect(self, cluster: str, namespace: str) -> None:
        """Raises what Ray raises, and OSError."""
        if cluster != "auto":
            host, _, port = cluster.rpartition(":")
            socket.create_connection(
                (host, int(port)), REACH_S
            ).close()  # Ray itself would try for minutes and not say why
        ray.init(address=cluster, namespace=namespace, log_to_driver=False, configure_logging=False)
        for name in ray.util.list_named_actors():
            job, attempt, device = parse_name(name)
            try:
                actor = ray.get_actor(name)
            except ValueError:  # it ended just now
                continue
            self._hands[job, attempt] = ActorHandle(job, attempt, device, actor, time.monotonic())
            self.say(ActorFound(job, attempt, device))
        self._look_at_nodes()
        self.say(Connected())

    def turn(self) -> None:
        """One round."""
        self._socket.poll(int(1000 * TURN_S))
        while self._socket.poll(0):
            self._obey(unpack_order(self._secret, self._socket.recv()))
        if time.monotonic() >= self._nodes_at:
            self._look_at_nodes()
        self._listen()
        now = time.monotonic()
        for hand in list(self._hands.values()):
            if hand.why and now >= hand.force_at:
                self._force(hand)
            elif not hand.answered and not hand.complained and now - hand.given_at > UNPLACED_S:
                hand.complained = True
                message = (
                    f"waits for a GPU of the cluster's node {_node(hand)}; something else of the cluster may hold it"
                )
                self.say(StatusReport(hand.job, "", message, hand.attempt))

    def _look_at_nodes(self) -> None:
        self._nodes_at = time.monotonic() + NODES_S
        slots = slots_of(ray.nodes())
        if slots != self._slots:
            self.say(DevicesAvailable(tuple(slots)))
            self._slots = slots

    def _obey(self, order: Any) -> None:
        if isinstance(order, RunJob):
            self._give(order)
        elif isinstance(order, Stop):
            for hand in self._hands.values():
                if hand.job == order.job:
                    hand.actor.stop.remote(order.why)
                    # One that has not begun has nothing to lose.
                    grace_s = self._grace_s if hand.answered else min(self._grace_s, UNBEGUN_S)
                    hand.why, hand.force_at = order.why, time.monotonic() + grace_s
        elif isinstance(order, KillActor):
            hand = self._hands.pop((order.job, order.attempt), None)
            if hand is not None:
                ray.kill(hand.actor)

    def _give(self, work: RunJob) -> None:
        job, attempt, device = work.job.job, work.job.attempt, work.job.device
        node = (self._slots or {}).get(device)
        if node is None:
            self.say(ActorLost(job, attempt, f"the cluster's device {device} went away"))
            return
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        actor = self._kind.options(
            name=actor_name(job, attempt, device), lifetime="detached", num_gpus=1, num_cpus=0, max_restarts=0, max_concurrency=8,
            scheduling_strategy=here,
        ).remote(job, attempt, pack_order(NO_SECRET, work), self._compute, __version__)  # fmt: skip
        self._hands[job, attempt] = ActorHandle(job, attempt, device, actor, time.monotonic())

    def _listen(self) -> None:
        asked = {}
        for hand in self._hands.values():
            if hand.answer is None:
                hand.answer = hand.actor.listen.remote(hand.after, LISTEN_S)
            asked[hand.answer] = hand
        done = ray.wait(list(asked), num_returns=len(asked), timeout=0)[0] if asked else []
        for answer in done:
            hand = asked[answer]
            hand.answer = None
            try:
                hand.after, heeded, reports = ray.get(answer, timeout=30.0)
            except (ActorUnavailableError, GetTimeoutError):  # may come back; whether it died, Ray says in time
                continue
            except RayError as error:  # it died, or the node it was meant for is gone
                self._bury(hand, error)
                continue
            hand.answered = True
            if heeded:
                hand.why = ""
            for report in reports:
                self._pass_on(hand, report)

    def _pass_on(self, hand: ActorHandle, data: bytes) -> None:
        try:
            report = unpack_order(NO_SECRET, data)
        except ProtocolError as error:
            print(f"a report of job {hand.job} cannot be read: {error}", file=sys.stderr, flush=True)
            return
        self.say(report)

    def _bury(self, hand: ActorHandle, error: RayError) -> None:
        del self._hands[hand.job, hand.attempt]
        ray.kill(hand.actor)  # should it live after all, its GPU would stay taken
        print(f"job {hand.job}, attempt {hand.attempt}, on {hand.device}: {error}", file=sys.stderr, flush=True)
        self._look_at_nodes()
        if getattr(error, "actor_init_failed", False):  # our constructor cannot fail, so its code could not be loaded
            message = (
                f"the cluster's node {_node(hand)} cannot load dreamwright ({last_line(error)}); install dreamwright[ray] {__version__} "
                "there, for the Python that its `ray start` runs with, then send the job again"
            )
            self.say(JobFinished(hand.job, "failed", message[:MESSAGE_CHARACTERS], False, hand.attempt))
        elif hand.device not in (self._slots or {}):
            self.say(ActorLost(hand.job, hand.attempt, f"the cluster's node {_node(hand)} was lost"))
        else:
            self.say(ActorLost(hand.job, hand.attempt, f"its process on the cluster's node {_node(hand)} died"))

    def _force(self, hand: ActorHandle) -> None:
        """It was told to stop and did not look up: the checkpoint keeps what was done."""
        del self._hands[hand.job, hand.attempt]
        ray.kill(hand.actor)
        how, rest = (
            ("paused", "it goes on from its last checkpoint")
            if hand.why == "pause"
            else ("cancelled", "there is no mesh")
        )
        message = f"it did not stop within {self._grace_s:g} s, so its process was ended; {rest}"
        self.say(JobFinished(hand.job, how, message, False, hand.attempt))


def _node(hand: ActorHandle) -> str:
    return hand.device.rpartition("/")[0]


def last_line(error: BaseException) -> str:
    """What went wrong at the bottom of a traceback that came from another machine."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


def explain(cluster: str, error: Exception) -> str:
    """Why there is no connection to a cluster, and what to do."""
    if "Version mismatch" in str(error):
        told = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
        return f"the Ray cluster at {cluster} is of other versions than this server: {told[:600]}; install the same Ray and Python on all machines"
    return (
        f"no Ray cluster answers at {cluster} ({one_line(error)}); start one with `ray start --head`, let this machine join it with "
        "`ray start --address=HOST:PORT --num-gpus=0`, and set RAY_AUTH_MODE and its token here as there (docs/operator/ray-cluster.md)"
    )


def end_with_server() -> None:
    """The server holds the other end of stdin: the envoy ends when the server does; the actors go on."""
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then ends this process
    told = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_server, daemon=True).start()
    envoy = RayBridge(told["address"], told["secret"], told["compute"], told["grace_s"])
    try:
        envoy.connect(told["cluster"], told["namespace"])
    except Exception as error:  # Ray raises RuntimeError, ConnectionError, ValueError and errors of gRPC
        traceback.print_exc()
        envoy.say(ConnectionFailed(explain(told["cluster"], error)[:MESSAGE_CHARACTERS]))
        sys.exit(1)
    while True:
        envoy.turn()


if __name__ == "__main__":
    main()
