# SPDX-License-Identifier: GPL-3.0-or-later
"""The client: no threads, no waiting. `tick` sends and takes in what there is within a budget of time, and returns it.

ZeroMQ's own I/O thread moves the bytes; it is native code that never needs Python's lock, so Blender stays safe.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import zmq

from . import limits
from .connection_monitor import Lock, Verdict, Watch, words
from .errors import ProtocolError, Refused, Unanswered
from .messages import (
    Closing,
    Hello,
    JobChanged,
    JobForgotten,
    JobList,
    PreviewFrame,
    Refusal,
    Seen,
    Subscribe,
    VersionMismatch,
    Welcome,
    check_request,
    pack,
    unpack,
)
from .subscription import Subscription

OnReply = Callable[[Any], None]  # gets the reply, or a `Refused`


class Link(str, Enum):
    """How the connection stands."""

    CLOSED = "closed"
    CONNECTING = "connecting"
    ONLINE = "online"
    LOST = "lost"  # was online; trying to come back
    BARRED = "barred"  # the two sides' keys do not fit; tried again every few seconds, since somebody may see to it
    REFUSED = "refused"  # the server speaks another version; nothing will come of waiting


@dataclass(frozen=True)
class LinkChanged:
    """The connection changed; `reason` says why in words for a person."""

    link: Link
    reason: str


@dataclass
class _Pending:
    message: Any
    on_reply: OnReply
    sent_at: float
    tries: int = 1
    timeout_s: float = limits.REQUEST_TIMEOUT_S


class Client:
    """One server. Call `tick` often; everything that happens comes back from it or through `on_reply`.

    With a `lock` it talks encrypted, to the server of that key or to nobody.
    """

    def __init__(
        self,
        address: str,
        client_id: str | None = None,
        software: str = "dreamwright",
        clock: Callable[[], float] = time.monotonic,
        prepare: Callable[[zmq.Socket], None] = lambda socket: None,
        lock: Lock | None = None,
    ) -> None:
        self.address, self.software = address, software
        self.client_id = client_id or uuid.uuid4().hex
        self.link, self.reason, self.epoch, self._farewell = Link.CLOSED, "", "", ""
        self.round_trip_s = 0.0
        self._clock, self._prepare, self._lock = clock, prepare, lock
        self._watch: Watch | None = None
        self._verdict: Verdict | None = None  # on this socket
        self._context: zmq.Context | None = None
        self._socket: zmq.Socket | None = None
        self._pending: dict[int, _Pending] = {}
        self._subscription = Subscription()
        self._number = 0
        self._heard = self._spoke = self._ticked = 0.0
        self._out: list[Any] = []

    # --- life

    def connect(self) -> None:
        """Begin to connect; `tick` says when it worked. Raises zmq.ZMQError for an address that is none."""
        self.close()
        self._context = zmq.Context(io_threads=1)
        self._open()
        self._become(Link.CONNECTING, f"connecting to {self.address}")

    def close(self) -> None:
        """Let go of everything at once; unanswered requests are forgotten."""
        self._drop_socket()
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None
        self._pending.clear()
        self._subscription = Subscription()
        self.link = Link.CLOSED

    def _open(self) -> None:
        self._drop_socket()
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 200)
        socket.setsockopt(zmq.RCVHWM, 200)
        socket.setsockopt(zmq.MAXMSGSIZE, limits.REPLY_BYTES + limits.SEALING_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL, 200)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
        self._socket, self._verdict = socket, None
        try:
            self._watch = Watch(socket, self._lock is not None, self.address)
            if self._lock is not None:
                self._lock.put_on(socket)
            self._prepare(socket)
            socket.connect(self.address)
        except BaseException:
            self._drop_socket()
            raise
        self._heard = self._ticked = self._clock()
        self._begin()

    def _drop_socket(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._socket is not None:
            self._socket.close(0)
            self._socket = None

    def _become(self, link: Link, reason: str) -> None:
        if (link, reason) != (self.link, self.reason):
            self.link, self.reason = link, reason
            self._out.append(LinkChanged(link, reason))

    # --- asking

    def request(self, message: Any, on_reply: OnReply, timeout_s: float = limits.REQUEST_TIMEOUT_S) -> None:
        """Send a request; it is sent again while unanswered, so only ask what may be asked twice.

        Raises ProtocolError when a field breaks its rule or all of them are too much, before anything is sent.
        """
        check_request(message)
        if self._socket is None:
            on_reply(Refused("not-now", f"not connected to {self.address}"))
            return
        self._number += 1
        self._pending[self._number] = _Pending(message, on_reply, self._clock(), 1, timeout_s)
        self._send(message, self._number)

    def subscribe(self, previews_of: str = "") -> None:
        """Have every change of jobs handed out by `tick`, and the previews of one job; lasts over reconnections."""
        self._subscription.wanted = True
        self._subscription.previews_of = previews_of
        if self.link is Link.ONLINE:
            self._ask_snapshot()

    def _greet(self) -> None:
        sent = self._clock()

        def answered(reply: Any) -> None:
            if isinstance(reply, Welcome):
                self.round_trip_s = self._clock() - sent
                self._welcomed(reply)

        self.request(Hello(self.client_id, self.software), answered, 1e9)

    def _welcomed(self, reply: Welcome) -> None:
        self.epoch, self._farewell = reply.epoch, ""
        self._become(Link.ONLINE, f"{reply.software} at {self.address}")
        if self._subscription.wanted:
            self._ask_snapshot()

    def _ask_snapshot(self) -> None:
        subscription = self._subscription
        subscription.asked += 1

        def arrived(reply: Any) -> None:
            subscription.answered(reply if isinstance(reply, JobList) else None)
            if isinstance(reply, JobList):
                self._out.append(reply)
            elif isinstance(reply, Refused) and reply.code == "no-such-job" and subscription.previews_of:
                subscription.previews_of = ""  # the watched job is gone, or this user's no more: the list still counts
                self._ask_snapshot()

        self.request(Subscribe(self._subscription.previews_of), arrived)

    def _send(self, message: Any, number: int) -> None:
        self._spoke = self._clock()
        try:
            self._socket.send(pack(message, number), zmq.NOBLOCK)
        except zmq.Again:
            pass  # the pipe is full: unanswered requests are sent again, and a pulse has nothing to lose

    # --- taking in

    def tick(self, budget_s: float = 0.004) -> list[Any]:
        """Everything that happened: `LinkChanged`, `JobList`, `JobChanged`, `JobForgotten`, `PreviewFrame`, `Closing`."""
        if self._socket is not None:
            now = self._clock()
            stalled, self._ticked = now - self._ticked > limits.PULSE_S * limits.LIVENESS, now
            if stalled and self.link is Link.ONLINE:
                # Blender was busy (a render, a file dialog) and the server may have taken this client for gone.
                self._heard = now
                self._greet()
            self._look()
            self._receive(now + budget_s)
        if self._socket is not None:
            self._keep_alive()
        out, self._out = self._out, []
        return out

    def _look(self) -> None:
        """Take in how handshakes ended; a refusal means trying again, which a refused socket never does by itself."""
        verdict = self._watch.newest() if self._watch is not None else None
        if verdict is None:
            return
        self._verdict = verdict
        if verdict is Verdict.LET_IN and self._watch.let_in > 1 and self.link is not Link.REFUSED:
            # ZeroMQ connected anew by itself: to the server this is a stranger who subscribed to nothing, and what was on
            # the way is lost.
            self._begin()
        if verdict is not Verdict.LET_IN and self.link is not Link.REFUSED:
            self._become(Link.BARRED, words(verdict, self.address, self._lock))

    def _receive(self, end: float) -> None:
        while True:
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._heard = self._clock()
            try:
                number, message = unpack(parts[-1], limits.REPLY_BYTES)
            except VersionMismatch as mismatch:
                self._drop_socket()
                self._become(Link.REFUSED, mismatch.told_by_client(self.address))
                return
            except ProtocolError as error:
                reason = f"{self.address} answers, but not as Dreamwright does ({error}); check address and port, then connect again"
                self._become(Link.REFUSED, reason)
                self._drop_socket()
                return
            self._take(number, message)
            if self._socket is None or self._clock() > end:
                return

    def _take(self, number: int, message: Any) -> None:
        if number:
            pending = self._pending.pop(number, None)
            if pending is not None:
                if isinstance(message, Refusal):
                    if message.code == "version":
                        self._become(Link.REFUSED, message.message)
                    elif message.code == "not-admitted":
                        self._become(Link.BARRED, message.message)
                        if not isinstance(pending.message, (Hello, Subscribe)):
                            self._pending[number] = pending  # not carried out; asked again while there is hope
                            return
                    message = Refused(message.code, message.message)
                pending.on_reply(message)
        elif isinstance(message, (JobChanged, JobForgotten)):
            self._take_change(message)
        elif isinstance(message, PreviewFrame):
            self._send(Seen(1), 0)
            if message.job == self._subscription.previews_of:
                self._out.append(message)
        elif isinstance(message, Closing):
            self._farewell = message.message
            self._out.append(message)

    def _take_change(self, event: JobChanged | JobForgotten) -> None:
        """Hand out what is newer than what was handed out; ask for everything again when some was lost."""
        if self._subscription.misses(event):
            self._ask_snapshot()
        if self._subscription.is_news(event):
            self._out.append(event)

    def _keep_alive(self) -> None:
        now = self._clock()
        silent = now - self._heard
        if silent > limits.PULSE_S * limits.LIVENESS and self.link is not Link.REFUSED:
            # A socket that was refused or lost its server never recovers by itself in every case: start afresh.
            if self._verdict not in (None, Verdict.LET_IN):
                pass  # why is known and told
            elif self.link in (Link.ONLINE, Link.LOST):
                self._become(Link.LOST, self._farewell or f"no answer from {self.address} any more; trying again")
            else:
                self._become(Link.CONNECTING, f"no answer from {self.address} yet; is the server running?")
            self._open()
            return
        for number, pending in list(self._pending.items()):
            if now - pending.sent_at > pending.timeout_s:
                if pending.tries >= limits.REQUEST_TRIES:
                    del self._pending[number]
                    pending.on_reply(Unanswered("not-now", f"{self.address} did not answer"))
                else:
                    pending.tries, pending.sent_at = pending.tries + 1, now
                    self._send(pending.message, number)
        if now - self._spoke > limits.PULSE_S:
            self._number += 1
            greeting = Hello(self.client_id, self.software)
            self._pending[self._number] = _Pending(greeting, self._still_there, now, limits.REQUEST_TRIES)
            self._send(greeting, self._number)

    def _still_there(self, reply: Any) -> None:
        """A sign of life is a greeting, for its answer tells a server that was started anew behind the same address."""
        if isinstance(reply, Welcome) and (self.link is not Link.ONLINE or reply.epoch != self.epoch):
            self._welcomed(reply)

    def _begin(self) -> None:
        """On a connection that knows nothing of what was before: greet, and ask again what was not answered."""
        waiting = [p for p in self._pending.values() if not isinstance(p.message, (Hello, Subscribe))]
        self._pending.clear()
        self._subscription.asked = 0  # the answers of the connection before never come
        self._greet()
        for pending in waiting:
            self._number += 1
            pending.sent_at, pending.tries = self._clock(), 1
            self._pending[self._number] = pending
            self._send(pending.message, self._number)
