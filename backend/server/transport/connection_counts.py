# SPDX-License-Identifier: GPL-3.0-or-later
"""How many connections there are, and of which users: from the socket's monitor and from the frames that arrive.

libzmq names no connection when it asks whether a key is admitted. So a connection belongs to a user from its first
message on, and until then an admission counts for that user. A connection that sends nothing is closed.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket as sockets
import sys
from collections.abc import Callable

import zmq

log = logging.getLogger(__name__)

FIRST_MESSAGE_S = 30.0  # from the connection to the first message; a client greets at once
CHECK_INTERVAL_S = 1.0
LOG_INTERVAL_S = 60.0  # between two log lines about one user
EVENTS_PER_READ = 5000
_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
_counter = itertools.count()


class ConnectionCounts:
    """The living connections of one socket. Create it before the socket is bound; close it before the socket."""

    def __init__(self, socket: zmq.Socket[bytes], clock: Callable[[], float]) -> None:
        self._socket, self._clock = socket, clock
        self.living: dict[int, int] = {}  # number of the connection, which no other has had, by file descriptor
        self._accepted = 0
        self._silent: dict[int, float] = {}  # when it was accepted, by descriptor, until the first message
        self._user: dict[int, str] = {}  # by descriptor
        self._count: dict[str, int] = {}  # descriptors by user
        self._admitted: dict[str, list[float]] = {}  # times of admissions without a message yet, by user
        self._log_at: dict[str, float] = {}  # time of the next log line, by user
        self._check_at = clock() + CHECK_INTERVAL_S
        self._events = socket.get_monitor_socket(_EVENTS, f"inproc://dreamwright-connections-{next(_counter)}")
        self._events.setsockopt(zmq.RCVHWM, 0)

    @property
    def total(self) -> int:
        """All connections, those that have not finished their handshake included."""
        return len(self.living)

    def of(self, user: str) -> int:
        """The connections of a user, with those that were admitted and have not sent a message yet."""
        return self._count.get(user, 0) + len(self._admitted.get(user, ()))

    def admit(self, user: str, user_limit: int, total_limit: int) -> bool:
        """Whether a user may have one more connection, which is counted then; a refusal is logged once a minute."""
        self._read_events()  # the connection that asks must be among the total
        now, used = self._clock(), self.of(user)
        if used < user_limit and self.total <= total_limit:
            self._admitted.setdefault(user, []).append(now)
            return True
        if now >= self._log_at.get(user, now):
            self._log_at[user] = now + LOG_INTERVAL_S
            numbers = {"used": used, "limit": user_limit, "total": self.total, "total_limit": total_limit}
            advice = "raise --connections-per-user or --connections-total for more"
            log.warning("connections not admitted", extra={"user": user, **numbers, "advice": advice})
        return False

    def message(self, descriptor: int, name: Callable[[], str]) -> None:
        """A message arrived over a connection; `name` tells its user, and is asked for the first message only."""
        if descriptor in self._user or descriptor not in self.living:
            return
        user = name()
        self._silent.pop(descriptor, None)
        self._user[descriptor] = user
        self._count[user] = self._count.get(user, 0) + 1
        waiting = self._admitted.get(user)
        if waiting:
            waiting.pop(0)

    def step(self) -> int:
        """Follow what happened to the connections; every second, close silent ones. Returns how many were closed."""
        self._read_events()
        now = self._clock()
        if now < self._check_at:
            return 0
        self._check_at = now + CHECK_INTERVAL_S
        for user, times in list(self._admitted.items()):
            times[:] = [at for at in times if now - at < FIRST_MESSAGE_S]
            if not times:
                del self._admitted[user]
        return sum(shut_down(fd) for fd, at in list(self._silent.items()) if now - at > FIRST_MESSAGE_S)

    def close(self) -> None:
        """End the monitor."""
        self._socket.disable_monitor()
        self._events.close(0)

    def _read_events(self) -> None:
        for _ in range(EVENTS_PER_READ):
            try:
                frames = self._events.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            # The event's number (16 bits), then the file descriptor (32 bits).
            event = int.from_bytes(frames[0][:2], sys.byteorder)
            self._follow(event, int.from_bytes(frames[0][2:6], sys.byteorder, signed=True))

    def _follow(self, event: int, descriptor: int) -> None:
        if event == zmq.EVENT_ACCEPTED:
            self._forget_user(descriptor)  # the descriptor of a connection whose end was not seen
            self._accepted += 1
            self.living[descriptor] = self._accepted
            self._silent[descriptor] = self._clock()
        else:
            self.living.pop(descriptor, None)
            self._silent.pop(descriptor, None)
            self._forget_user(descriptor)

    def _forget_user(self, descriptor: int) -> None:
        user = self._user.pop(descriptor, None)
        if user is not None:
            self._count[user] -= 1
            if not self._count[user]:
                del self._count[user]


def shut_down(descriptor: int) -> int:
    """End the TCP connection under ZeroMQ, which then drops its state. Returns 1, or 0 where that cannot be done."""
    if os.name != "posix":
        return 0  # a socket's handle cannot be duplicated there
    try:
        with sockets.socket(fileno=os.dup(descriptor)) as copy:
            copy.shutdown(sockets.SHUT_RDWR)
    except OSError:
        return 0  # the peer disconnected by itself
    return 1
