# SPDX-License-Identifier: GPL-3.0-or-later
"""The one port that artists reach: a ROUTER that answers requests and sends events, in one thread.

On a loopback address everybody is the same person. On any other one the door is encrypted and asks for keys, and whose a
request is, is looked up anew at each of them: by the key that CURVE proved, never by a routing id, which anybody may choose.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import zmq
from filelock import FileLock, Timeout

from dreamwright.shared import __version__, limits
from dreamwright.shared.codec import VersionMismatchError, pack, unpack
from dreamwright.shared.errors import ProtocolError, RequestError
from dreamwright.shared.messages import PreviewFrame, Refusal, Subscribe, Welcome

from ..errors import CheckpointError, ConfigError
from .jobs.job_store import JobStore
from .monitoring.status_reporter import MetricsSnapshot
from .policy import Policy
from .service import Service
from .transport.authorized_keys import LOCAL, AuthorizedKeys, KeyFolder
from .transport.connection_limiter import ConnectionLimiter
from .transport.subscribers import Audience
from .transport.zap_authenticator import DOMAIN, ZapAuthenticator
from .workers.local_runner import LocalRunner
from .workers.runner import Runner

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")  # addresses that nothing outside of this machine can reach
FAILED = Refusal("internal", "the server failed on this request; its log says more")
TURN_S = 0.1  # of answering, before the workers get their turn
LOSS_S = 60.0  # between two lines of the log about slow clients
GRACE_S = (
    30.0  # for the steps in hand when the server is told to stop; a step of a large model on a CPU may take that long
)
FAREWELL_MS = 500  # for the last words to clients
PUBLISH_S = 1.0  # between two looks at the figures for an exporter
NOT_ADMITTED = "the server does not let this key in any more; ask who runs it"


class Server:
    """A server: `step` does what there is to do; `run` repeats it until told to stop.

    `encrypt` asks for keys on a loopback address too; everywhere else they are asked for in any case. `runner` makes what
    runs the jobs; without it they run in worker processes of this machine, on `devices`.
    """

    def __init__(
        self,
        address: str,
        state: Path,
        devices: tuple[str, ...],
        encrypt: bool = False,
        policy: Policy = Policy(),
        runner: Callable[[zmq.Context], Runner] | None = None,
    ) -> None:
        encrypt = not check_address(address) or encrypt
        keys = KeyFolder(state)
        pair = keys.pair() if encrypt else None  # before anything is opened: without keys there is no door
        state.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(state / "lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise CheckpointError(
                f"another server uses {state}; stop it, or choose another folder with --state"
            ) from error
        self._context = zmq.Context(io_threads=1)
        self.doorkeeper: ZapAuthenticator | None = None
        try:
            self._socket = self._open_socket()
            if pair is None:
                # Without a domain libzmq takes noise for a peer of ZMTP 1.0, which has no handshake to end and no heartbeat,
                # and keeps it for ever. With one it speaks 3.0 only; nobody is asked, as there is no doorkeeper.
                self._socket.setsockopt_string(zmq.ZAP_DOMAIN, DOMAIN)
            else:
                self.doorkeeper = ZapAuthenticator(self._context, AuthorizedKeys(keys))
                self.doorkeeper.lock(self._socket, pair)
            self.address = self._bind(address, open_to_all=pair is None)
            self._foreman: Runner = (
                runner(self._context) if runner else LocalRunner(self._context, devices, state / "logs")
            )
        except ConfigError:
            self._context.destroy(linger=0)
            self._lock.release()
            raise
        self._inflow = ConnectionLimiter(int(self.address.rpartition(":")[2]), time.monotonic)
        self.server_key = None if pair is None else pair.public
        self._guests: dict[
            bytes, tuple[str, str]
        ] = {}  # key and standing of who subscribed, by route; each event asks again
        self._ledger = JobStore(state)
        self._lost, self._tell_loss_at = (
            0,
            0.0,
        )  # messages to slow clients since the log last told, and when it may again
        self._audience = Audience(self._send_event, time.monotonic)
        epoch = secrets.token_hex(8)
        software = f"dreamwright {__version__}"
        self.service = Service(self._ledger, self._foreman, self._audience, software, epoch, policy=policy)
        self.publish: Callable[[MetricsSnapshot], None] | None = None  # told all figures now and then
        self._publish_at = 0.0
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._foreman.socket, zmq.POLLIN)
        if self.doorkeeper is not None:
            self._poller.register(self.doorkeeper.socket, zmq.POLLIN)

    def _open_socket(self) -> zmq.Socket:
        socket = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.ROUTER_MANDATORY, 1),  # tell who is gone instead of dropping in silence
            (
                zmq.ROUTER_HANDOVER,
                0,
            ),  # a second connection under a known routing id must not get the first one's replies
            (zmq.SNDHWM, 64),
            (zmq.RCVHWM, 64),
            (
                zmq.MAXMSGSIZE,
                limits.REQUEST_BYTES + limits.ENCRYPTION_OVERHEAD_BYTES,
            ),  # a frame; how many frames a message has, ZeroMQ does not bound
            (zmq.HANDSHAKE_IVL, 10_000),  # ms for a stranger to say who it is
            (zmq.HEARTBEAT_IVL, 5_000),  # ms between pings, which a busy Blender's ZeroMQ answers for it
            (
                zmq.HEARTBEAT_TIMEOUT,
                20_000,
            ),  # ms without an answer, then the connection and what waits for it are let go
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.BACKLOG, 512),
        ):
            socket.setsockopt(option, value)
        return socket

    def _bind(self, address: str, open_to_all: bool) -> str:
        if "[" in address:
            self._socket.setsockopt(zmq.IPV6, 1)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            raise ConfigError(
                f"cannot listen on {address}: {error}; stop what uses it, or choose another with --address"
            ) from error
        bound = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        # "localhost" is what this machine's hosts file says it is.
        if open_to_all and not re.fullmatch(r"tcp://(127(\.\d+){3}|\[::1\]|\[::ffff:127(\.\d+){3}\]):\d+", bound):
            raise ConfigError(
                f"{address} is {bound} here, which other machines may reach; name it so, or use tcp://127.0.0.1:47630"
            )
        return bound

    def step(self, wait_s: float = 0.1) -> None:
        """Wait for something to happen, at most `wait_s`, and deal with it."""
        self._poller.poll(int(1000 * wait_s))
        if self.doorkeeper is not None:
            self.doorkeeper.answer()
        end = time.monotonic() + TURN_S
        for _ in range(200):  # then the workers get their turn, however much is asked
            try:
                route, frame, count = self._receive()
            except zmq.Again:
                break
            self._note_arrival(frame)
            if count == 1:
                self._answer(route, frame)
            else:
                self._send(route, pack(Refusal("bad-message", f"a message in {count} frames; allowed is one"), 0))
            if time.monotonic() > end:
                break
        self._cut_floods()
        self.service.work()
        if self.publish is not None and time.monotonic() >= self._publish_at:
            self._publish_at = time.monotonic() + PUBLISH_S
            self.publish(self.service.observer.figures())

    def _receive(self) -> tuple[bytes, zmq.Frame, int]:
        """A message's route, its first frame and the number of its frames; the others are let go one by one, be they a million."""
        route = self._socket.recv(zmq.NOBLOCK)
        frame = self._socket.recv(zmq.NOBLOCK, copy=False)  # the rest of a message is there when its first part is
        count, last = 1, frame
        while last.more:
            last = self._socket.recv(zmq.NOBLOCK, copy=False)
            count += 1
        return route, frame, count

    def _note_arrival(self, frame: zmq.Frame) -> None:
        try:
            self._inflow.heard(int(frame.get(zmq.SRCFD)))
        except zmq.ZMQError:
            return  # not from a wire

    def _cut_floods(self) -> None:
        cut = self._inflow.look()
        if cut:
            log.warning("connections cut that sent too much without ending a message", extra={"connections": cut})

    def run(self, stopping: Callable[[], int], grace_s: float = GRACE_S) -> bool:
        """Serve until `stopping` counts one word to stop, then let the running jobs write a checkpoint, and close.

        After `grace_s` or a second word the workers that still have a job in hand are killed; False if there were any.
        """
        whole = False
        try:
            while not stopping():
                self.step()
            whole = self._see_out(stopping, grace_s)
        finally:
            self.close(0.0, FAREWELL_MS if stopping() < 2 else 0)  # whoever has work in hand now had its time
        return whole

    def _see_out(self, stopping: Callable[[], int], grace_s: float) -> bool:
        begun = time.monotonic()
        log.info("server stops", extra={"jobs": len(self.service.at_work()), "grace_s": grace_s})
        self.service.begin_closing()
        while self.service.at_work() and time.monotonic() - begun < grace_s and stopping() < 2:
            self.step(0.02)
        for job in self.service.at_work():
            log.warning("worker is killed in the middle of its work", extra={"job": job})
        return not self.service.at_work()

    def close(self, grace_s: float = 5.0, linger_ms: int = 0) -> None:
        """End the workers (their checkpoints keep what was done) and let go of port and folder."""
        self._foreman.close(grace_s)
        self._ledger.close()
        self._context.destroy(linger=linger_ms)
        self._lock.release()

    def _answer(self, route: bytes, frame: zmq.Frame) -> None:
        number, kind, reply, begun, tally = 0, "none", None, time.perf_counter(), self.service.tally
        try:
            try:
                number, request = unpack(frame.bytes, limits.REQUEST_BYTES)
            except ProtocolError as error:
                number, code = error.number, "version" if isinstance(error, VersionMismatchError) else "bad-message"
                raise RequestError(code, str(error)) from error
            kind = type(request).__name__
            reply = self._reply(route, frame, request)
        except RequestError as refused:
            reply = Refusal(refused.code, refused.message[: limits.MESSAGE_CHARACTERS])
            log.debug("request refused", extra={"request": kind, "code": refused.code, "why": refused.message})
        except Exception:
            log.exception("request failed", extra={"request": kind})
            reply = FAILED
        if reply is not None:
            try:
                data = pack(reply, number)
            except (
                ProtocolError
            ):  # a client's words in an answer may break the wire's rules, and must not end the server
                log.exception("answer breaks the rules of the wire", extra={"request": kind})
                reply, data = FAILED, pack(FAILED, number)
            self._send(route, data)
        tally.requests[kind] += 1
        if isinstance(reply, Refusal):
            tally.refusals[reply.code] += 1
        tally.answers.add(time.perf_counter() - begun)

    def _reply(self, route: bytes, frame: zmq.Frame, request: Any) -> Any:
        if self.doorkeeper is None:
            return self.service.answer(request, LOCAL, route)
        key, user = self.doorkeeper.user_of(frame)
        if user is None:
            self._guests.pop(route, None)
            raise RequestError("not-admitted", NOT_ADMITTED)
        if len(route) != 5 or route[0] != 0:
            # Whoever takes over a dead artist's routing id would get the events that were meant for that artist. Those
            # that libzmq makes begin with a zero byte and cannot be foreseen.
            raise RequestError("bad-message", "let ZeroMQ choose the routing id of this connection")
        if isinstance(request, Subscribe):
            self._note_guest(route, key, user.standing)
        reply = self.service.answer(request, user.name, route, user.is_admin)
        if isinstance(reply, Welcome):
            # Another epoch tells a client to subscribe anew: events end for who is shut out, let in again or given a role.
            mark = hashlib.sha256(user.standing.encode()).hexdigest()[:8]
            reply = replace(reply, epoch=f"{reply.epoch}-{mark}")
        return reply

    def _note_guest(self, route: bytes, key: str, standing: str) -> None:
        if len(self._guests) > 64 + 2 * len(self._audience):
            self._guests = {known: guest for known, guest in self._guests.items() if known in self._audience}
        self._guests[route] = key, standing

    def _send_event(self, route: bytes, event: Any) -> bool:
        """False also for whoever is not let in any more: the audience then forgets them."""
        if self.doorkeeper is not None:
            guest = self._guests.get(route)
            if guest is None or not self.doorkeeper.still(*guest):
                self._guests.pop(route, None)
                return False
        try:
            data = pack(event, 0)
        except ProtocolError:
            log.exception("event breaks the rules of the wire and is not sent")
            return True  # counted: the gap makes the client ask for everything
        tally = self.service.tally
        lost = tally.lost_events
        was_sent = self._send(route, data)
        if was_sent and tally.lost_events == lost and isinstance(event, PreviewFrame):
            tally.preview_bytes += len(data)
        return was_sent

    def _send(self, route: bytes, data: bytes) -> bool:
        """False when the peer is gone. A peer that reads too slowly loses the message, and will see the gap."""
        try:
            self._socket.send_multipart([route, data], zmq.NOBLOCK)
        except zmq.Again:
            self.service.tally.lost_events += 1
            self._note_loss(time.monotonic())
        except zmq.ZMQError:
            return False
        return True

    def _note_loss(self, now: float) -> None:
        """Somebody who never reads loses several messages a second, and must not fill the disk with the log of it."""
        self._lost += 1
        if now >= self._tell_loss_at:
            log.info("slow clients lost messages", extra={"messages": self._lost})
            self._lost, self._tell_loss_at = 0, now + LOSS_S


def check_address(address: str) -> bool:
    """Whether an address is this machine's own, where no keys are needed. Raises ConfigError for what is no address.

    What is not known to be loopback counts as foreign, 127.0.0.2 too: a door that asks in vain harms nobody.
    """
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if not address.startswith("tcp://") or not host or not re.fullmatch(r"\d{1,5}|\*", port):
        raise ConfigError(f"the address is {address!r}; allowed is tcp://HOST:PORT, for example tcp://127.0.0.1:47630")
    return host in LOOPBACK
