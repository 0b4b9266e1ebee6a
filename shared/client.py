# SPDX-License-Identifier: GPL-3.0-or-later
"""Non-blocking client without Python threads: `tick` sends, receives within a time budget, and returns the events.

ZeroMQ's own I/O thread moves the bytes. It is native code that never takes Python's lock, so it is safe in Blender.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq

from . import limits
from .codec import VersionMismatchError, check_request, pack, unpack
from .connection_monitor import ConnectionMonitor, CurveCredentials, HandshakeResult, describe_result
from .connection_state import ConnectionChanged, ConnectionReason, ConnectionState
from .errors import ProtocolError, RequestError, RequestTimeout
from .live_mesh_messages import LiveMeshAck, LiveMeshFrame
from .messages import (
    Hello,
    JobList,
    PreviewAck,
    PreviewFrame,
    Refusal,
    ServerShutdown,
    Subscribe,
    Welcome,
)
from .subscription import CountedEvent, Subscription

OnReply = Callable[[Any], None]  # called with the reply, or with a `RequestError`
TIMEOUT_S = limits.HEARTBEAT_S * limits.HEARTBEAT_LIVENESS  # of silence, after which the peer counts as gone
NEVER_S = 1e9  # timeout of the first greeting, which `_keep_alive` replaces by a new connection


@dataclass
class _Pending:
    message: Any
    on_reply: OnReply
    sent_at: float
    attempts: int = 1
    timeout_s: float = limits.REQUEST_TIMEOUT_S


class Client:
    """A connection to one server. Call `tick` often: it returns all events and calls the `on_reply` of requests.

    With `credentials` the connection is encrypted, and only the server with that key is accepted.
    """

    def __init__(
        self,
        address: str,
        client_id: str | None = None,
        software: str = "dreamwright",
        clock: Callable[[], float] = time.monotonic,
        prepare: Callable[[zmq.Socket[bytes]], None] = lambda socket: None,
        credentials: CurveCredentials | None = None,
    ) -> None:
        self.address, self.software = address, software
        self.client_id = client_id or uuid.uuid4().hex
        self.state, self.code, self.reason = ConnectionState.CLOSED, ConnectionReason.NONE, ""
        self.epoch, self._shutdown_message = "", ""
        self.round_trip_s = 0.0
        self._clock, self._prepare, self._credentials = clock, prepare, credentials
        self._monitor: ConnectionMonitor | None = None
        self._handshake: HandshakeResult | None = None  # of the current socket
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._pending: dict[int, _Pending] = {}
        self._subscription = Subscription()
        self._number = 0
        self._received_at = self._sent_at = self._ticked_at = 0.0
        self._events: list[Any] = []

    # --- connection

    def connect(self) -> None:
        """Start connecting; `tick` reports the outcome. Raises zmq.ZMQError for an invalid address."""
        self.close()
        self._open()
        self._set_state(ConnectionState.CONNECTING, ConnectionReason.CONNECTING, f"connecting to {self.address}")

    def close(self) -> None:
        """Close all sockets at once and drop unanswered requests."""
        self._drop_socket()
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None
        self._pending.clear()
        self._subscription = Subscription()
        self.state, self.code = ConnectionState.CLOSED, ConnectionReason.NONE

    def _open(self) -> None:
        self._drop_socket()
        if self._context is None:
            self._context = zmq.Context(io_threads=1)
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 200)
        socket.setsockopt(zmq.RCVHWM, 200)
        socket.setsockopt(zmq.MAXMSGSIZE, limits.REPLY_BYTES + limits.ENCRYPTION_OVERHEAD_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL, 200)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
        self._socket, self._handshake = socket, None
        try:
            self._monitor = ConnectionMonitor(socket, self._credentials is not None, self.address)
            if self._credentials is not None:
                self._credentials.apply_to(socket)
            self._prepare(socket)
            socket.connect(self.address)
        except BaseException:
            self._drop_socket()
            raise
        self._received_at = self._ticked_at = self._clock()
        self._restart()

    def _drop_socket(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self._socket is not None:
            self._socket.close(0)
            self._socket = None

    def _set_state(self, state: ConnectionState, code: ConnectionReason, reason: str) -> None:
        if (state, code, reason) != (self.state, self.code, self.reason):
            self.state, self.code, self.reason = state, code, reason
            self._events.append(ConnectionChanged(state, code, reason))

    # --- requests

    def request(self, message: Any, on_reply: OnReply, timeout_s: float = limits.REQUEST_TIMEOUT_S) -> None:
        """Send a request. It is sent again while unanswered, so every request must be safe to repeat.

        Raises ProtocolError, before anything is sent, for an invalid field or a message that is too large.
        """
        check_request(message)
        if self._socket is None:
            on_reply(RequestError("not-now", f"not connected to {self.address}"))
            return
        self._number += 1
        self._pending[self._number] = _Pending(message, on_reply, self._clock(), 1, timeout_s)
        self._send(message, self._number)

    def subscribe(self, previews_of: str = "", meshes_of: str = "") -> None:
        """Make `tick` return every change of jobs, and the previews and live meshes of one job each ("" for none).

        Kept across reconnections.
        """
        self._subscription.wanted = True
        self._subscription.previews_of, self._subscription.meshes_of = previews_of, meshes_of
        if self.state is ConnectionState.ONLINE:
            self._request_snapshot()

    def _greet(self) -> None:
        sent = self._clock()

        def on_reply(reply: Any) -> None:
            if isinstance(reply, Welcome):
                self.round_trip_s = self._clock() - sent
                self._on_welcome(reply)

        self.request(Hello(self.client_id, self.software), on_reply, NEVER_S)

    def _on_welcome(self, reply: Welcome) -> None:
        self.epoch, self._shutdown_message = reply.epoch, ""
        reason = f"{reply.software} at {self.address}"
        self._set_state(ConnectionState.ONLINE, ConnectionReason.CONNECTED, reason)
        if self._subscription.wanted:
            self._request_snapshot()

    def _request_snapshot(self) -> None:
        subscription = self._subscription
        subscription.snapshots_pending += 1

        def on_reply(reply: Any) -> None:
            subscription.on_snapshot(reply if isinstance(reply, JobList) else None)
            if isinstance(reply, JobList):
                self._events.append(reply)
            elif isinstance(reply, RequestError) and reply.code == "no-such-job" and subscription.has_frames:
                # The job was deleted, or now belongs to another user; the list of jobs is still needed.
                subscription.previews_of = subscription.meshes_of = ""
                self._request_snapshot()

        self.request(Subscribe(subscription.previews_of, subscription.meshes_of), on_reply)

    def _send(self, message: Any, number: int) -> None:
        if self._socket is None:
            return
        self._sent_at = self._clock()
        # A full pipe loses nothing: unanswered requests are sent again, and so is the next heartbeat.
        with contextlib.suppress(zmq.Again):
            self._socket.send(pack(message, number), zmq.NOBLOCK)

    # --- events

    def tick(self, budget_s: float = 0.004) -> list[Any]:
        """Events since the last call, read for at most about `budget_s` seconds.

        They are ConnectionChanged, JobList, JobChanged, JobDeleted, ModelDownloadChanged, CapabilitiesChanged,
        PreviewFrame, LiveMeshFrame and ServerShutdown.
        """
        if self._socket is not None:
            now = self._clock()
            was_stalled, self._ticked_at = now - self._ticked_at > TIMEOUT_S, now
            if was_stalled and self.state is ConnectionState.ONLINE:
                # Blender was blocked (a render, a file dialog), and the server may have dropped this client meanwhile.
                self._received_at = now
                self._greet()
            self._check_handshake()
            self._receive(now + budget_s)
        if self._socket is not None:
            self._keep_alive()
        events, self._events = self._events, []
        return events

    def _check_handshake(self) -> None:
        if self._monitor is None or self.state is ConnectionState.INCOMPATIBLE:
            return
        result = self._monitor.poll()
        if result is None:
            return
        self._handshake = result
        if result is not HandshakeResult.ACCEPTED:
            code, reason = describe_result(result, self.address, self._credentials)
            self._set_state(ConnectionState.UNAUTHORIZED, code, reason)
        elif self._monitor.accepted > 1:
            # ZeroMQ reconnected by itself. For the server this is a new client without a subscription, and messages
            # on their way are lost.
            self._restart()

    def _receive(self, end: float) -> None:
        while self._socket is not None:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._received_at = self._clock()
            try:
                number, message = unpack(frames[-1], limits.REPLY_BYTES)
            except VersionMismatchError as mismatch:
                self._give_up(ConnectionReason.VERSION_MISMATCH, mismatch.client_message(self.address))
                return
            except ProtocolError as error:
                self._give_up(
                    ConnectionReason.NOT_DREAMWRIGHT,
                    f"{self.address} answers, but not as Dreamwright does ({error}); check address and port, then "
                    "connect again",
                )
                return
            self._take(number, message)
            if self._clock() > end:
                return

    def _give_up(self, code: ConnectionReason, reason: str) -> None:
        self._drop_socket()
        self._set_state(ConnectionState.INCOMPATIBLE, code, reason)

    def _take(self, number: int, message: Any) -> None:
        if number:
            self._take_reply(number, message)
        elif isinstance(message, CountedEvent):
            self._take_change(message)
        elif isinstance(message, (PreviewFrame, LiveMeshFrame)):
            self._send(PreviewAck(1) if isinstance(message, PreviewFrame) else LiveMeshAck(1), 0)
            if self._subscription.wants(message):
                self._events.append(message)
        elif isinstance(message, ServerShutdown):
            self._shutdown_message = message.message
            self._events.append(message)

    def _take_reply(self, number: int, reply: Any) -> None:
        pending = self._pending.pop(number, None)
        if pending is None:
            return
        if isinstance(reply, Refusal):
            if reply.code == "version":
                self._set_state(ConnectionState.INCOMPATIBLE, ConnectionReason.VERSION_MISMATCH, reply.message)
            elif reply.code == "not-admitted":
                self._set_state(ConnectionState.UNAUTHORIZED, ConnectionReason.KEY_REVOKED, reply.message)
                if not isinstance(pending.message, (Hello, Subscribe)):
                    self._pending[number] = pending  # not executed: sent again in case the key is accepted later
                    return
            reply = RequestError(reply.code, reply.message)
        pending.on_reply(reply)

    def _take_change(self, event: CountedEvent) -> None:
        """Return the event if it is newer than what was returned; request a snapshot when events were lost."""
        if self._subscription.has_gap(event):
            self._request_snapshot()
        if self._subscription.is_new(event):
            self._events.append(event)

    # --- time

    def _keep_alive(self) -> None:
        now = self._clock()
        if now - self._received_at > TIMEOUT_S and self.state is not ConnectionState.INCOMPATIBLE:
            self._report_silence()
            self._open()  # a socket that was refused, or lost its server, does not always recover by itself
            return
        for number, pending in list(self._pending.items()):
            if now - pending.sent_at > pending.timeout_s:
                if pending.attempts >= limits.REQUEST_ATTEMPTS:
                    del self._pending[number]
                    pending.on_reply(RequestTimeout("not-now", f"{self.address} did not answer"))
                else:
                    pending.attempts, pending.sent_at = pending.attempts + 1, now
                    self._send(pending.message, number)
        if now - self._sent_at > limits.HEARTBEAT_S:
            self._number += 1
            greeting = Hello(self.client_id, self.software)
            self._pending[self._number] = _Pending(greeting, self._on_heartbeat, now, limits.REQUEST_ATTEMPTS)
            self._send(greeting, self._number)

    def _report_silence(self) -> None:
        if self._handshake not in (None, HandshakeResult.ACCEPTED):
            return  # the failed handshake is the reason, and was reported
        if self.state not in (ConnectionState.ONLINE, ConnectionState.LOST):
            reason = f"no answer from {self.address} yet; is the server running?"
            self._set_state(ConnectionState.CONNECTING, ConnectionReason.NO_ANSWER, reason)
        elif self._shutdown_message:
            self._set_state(ConnectionState.LOST, ConnectionReason.SERVER_SHUTDOWN, self._shutdown_message)
        else:
            reason = f"no answer from {self.address} any more; trying again"
            self._set_state(ConnectionState.LOST, ConnectionReason.NO_ANSWER, reason)

    def _on_heartbeat(self, reply: Any) -> None:
        """A heartbeat is a greeting, because its answer shows whether another server process has started there."""
        if isinstance(reply, Welcome) and (self.state is not ConnectionState.ONLINE or reply.epoch != self.epoch):
            self._on_welcome(reply)

    def _restart(self) -> None:
        """On a new connection: greet, and repeat the unanswered requests."""
        unanswered = [p for p in self._pending.values() if not isinstance(p.message, (Hello, Subscribe))]
        self._pending.clear()
        self._subscription.snapshots_pending = 0  # the previous connection's answers never arrive
        self._greet()
        for pending in unanswered:
            self._number += 1
            pending.sent_at, pending.attempts = self._clock(), 1
            self._pending[self._number] = pending
            self._send(pending.message, self._number)
