# SPDX-License-Identifier: GPL-3.0-or-later
"""The ROUTER socket that clients connect to: its options, its address, and sending without ever waiting."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from dreamwright.shared import limits

from ...errors import ConfigError
from ..monitoring.counters import Counters

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")  # hosts that other machines cannot reach
LOSS_INTERVAL_S = 60.0  # between two log lines about slow clients
FRAMES_PER_STEP = 5000  # of one message that are dropped before other work gets its turn: about 50 ms
OPTIONS = (
    (zmq.LINGER, 0),
    (zmq.ROUTER_MANDATORY, 1),  # sending to a peer that is gone raises
    (zmq.ROUTER_HANDOVER, 0),  # a second connection with a known routing id must not get the first one's replies
    (zmq.SNDHWM, 64),
    (zmq.RCVHWM, 64),
    (zmq.MAXMSGSIZE, limits.REQUEST_BYTES + limits.ENCRYPTION_OVERHEAD_BYTES),  # of a frame; their number is unbounded
    (zmq.HANDSHAKE_IVL, 10_000),  # ms for a new connection to complete its handshake
    (zmq.HEARTBEAT_IVL, 5_000),  # ms between pings, which the client's ZeroMQ answers even while Blender is busy
    (zmq.HEARTBEAT_TIMEOUT, 20_000),  # ms without an answer after which the connection is dropped
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.BACKLOG, 512),
)


@dataclass(frozen=True)
class Request:
    """A message as it arrived: the sender's routing id, the first frame, and the number of frames."""

    route: bytes
    frame: zmq.Frame
    frames: int


class RouterSocket:
    """A ROUTER socket that neither blocks on slow peers nor on messages of very many frames."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        counters: Counters,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.socket = context.socket(zmq.ROUTER)
        for option, value in OPTIONS:
            self.socket.setsockopt(option, value)
        self._counters, self._clock = counters, clock
        self._lost, self._log_at = 0, 0.0  # messages lost since the last log line, and the time of the next
        self._partial: Request | None = None  # a message whose remaining frames are dropped in the next steps

    def bind(self, address: str, loopback_only: bool) -> str:
        """Bind to `address`; returns the address with the actual port. Raises ConfigError.

        `loopback_only` refuses addresses that other machines can reach, whatever the machine's hosts file says.
        """
        if "[" in address:
            self.socket.setsockopt(zmq.IPV6, 1)
        try:
            self.socket.bind(address)
        except (zmq.ZMQError, ValueError) as error:  # ValueError: characters that no host name has
            raise ConfigError(
                f"cannot listen on {address}: {error}; stop what uses it, or choose another with --address"
            ) from error
        bound = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        if loopback_only and not re.fullmatch(r"tcp://(127(\.\d+){3}|\[::1\]|\[::ffff:127(\.\d+){3}\]):\d+", bound):
            raise ConfigError(
                f"{address} is {bound} on this machine, which others may reach; "
                "use that address, or tcp://127.0.0.1:47630"
            )
        return bound

    def receive(self) -> Request | None:
        """The next message; None while the rest of a message of very many frames is being dropped.

        Raises zmq.Again when there is none. ZeroMQ bounds the size of a frame but not the number of frames, and has all
        of them before the first one can be read; at most FRAMES_PER_STEP are read in one call.
        """
        if self._partial is None:
            route = self.socket.recv(zmq.NOBLOCK)
            first = self.socket.recv(zmq.NOBLOCK, copy=False)  # a message arrives whole
            frames, more = 1, first.more
        else:
            route, first, frames, more = self._partial.route, self._partial.frame, self._partial.frames, True
        limit = frames + FRAMES_PER_STEP
        while more and frames < limit:
            more = self.socket.recv(zmq.NOBLOCK, copy=False).more
            frames += 1
        request = Request(route, first, frames)
        self._partial = request if more else None
        return None if more else request

    def send(self, route: bytes, data: bytes) -> bool:
        """Send without waiting. False when the peer is gone; a peer that reads too slowly loses the message."""
        try:
            self.socket.send_multipart([route, data], zmq.NOBLOCK)
        except zmq.Again:
            self._counters.lost_events += 1
            self._log_loss()
        except zmq.ZMQError:
            return False
        return True

    def _log_loss(self) -> None:
        """A client that never reads loses several messages a second, which must not fill the disk with log lines."""
        self._lost += 1
        now = self._clock()
        if now >= self._log_at:
            log.info("slow clients lost messages", extra={"messages": self._lost})
            self._lost, self._log_at = 0, now + LOSS_INTERVAL_S


def is_loopback_address(address: str) -> bool:
    """Whether an address is the machine's own, so that no keys are needed. Raises ConfigError for a malformed one.

    Hosts that are not known to be loopback count as reachable, 127.0.0.2 too: asking for keys in vain harms nobody.
    """
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if not address.startswith("tcp://") or not host or not re.fullmatch(r"[0-9]{1,5}|\*", port):
        raise ConfigError(f"the address is {address!r}; allowed is tcp://HOST:PORT, for example tcp://127.0.0.1:47630")
    if port != "*" and int(port) > 65535:
        raise ConfigError(f"the port of {address!r} is {port}; allowed is 0 to 65535 (0 or * takes a free one)")
    return host in LOOPBACK
