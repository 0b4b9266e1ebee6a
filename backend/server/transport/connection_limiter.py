# SPDX-License-Identifier: GPL-3.0-or-later
"""Disconnects clients that send too many bytes without completing a message.

ZeroMQ bounds the size of a frame and the number of queued messages, but not the number of frames of one message: it
buffers a message of a million frames before anybody can refuse it. How much of a message it has buffered cannot be
asked; the Linux kernel, though, counts the bytes of each connection (TCP_INFO).
"""

from __future__ import annotations

import logging
import socket
import struct
import sys
from collections.abc import Callable, Mapping

from .connection_counts import shut_down

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 0.2  # a connection may exceed its limit by what arrives within it: 25 MB at 1 Gbit/s
ONE_BYTES = 16 * 1024 * 1024  # of one connection; 64 queued requests and the kernel's buffers are 10 MB
ALL_BYTES = 256 * 1024 * 1024  # of all connections together; then the largest is disconnected first
IS_SUPPORTED = sys.platform.startswith("linux")
_RECEIVED = 128  # offset of tcpi_bytes_received, 64 bits, in struct tcp_info (linux/tcp.h; since Linux 4.1)


class ConnectionLimiter:
    """`living`: the number of each connection by file descriptor. On systems other than Linux it does nothing."""

    def __init__(
        self,
        living: Callable[[], Mapping[int, int]],
        clock: Callable[[], float],
        one_bytes: int = ONE_BYTES,
        all_bytes: int = ALL_BYTES,
        supported: bool = IS_SUPPORTED,
    ) -> None:
        self._living, self._clock, self._supported = living, clock, supported
        self._one_bytes, self._all_bytes = one_bytes, all_bytes
        self._checked_at = clock()
        self._completed: set[int] = set()  # file descriptors that a whole message came from since the last check
        self._baseline: dict[tuple[int, int], int] = {}  # bytes at the last whole message, by descriptor and number
        if not supported:
            log.info("the limit on unfinished messages needs Linux and is off", extra={"platform": sys.platform})

    def message_completed(self, descriptor: int) -> None:
        """A whole message arrived over the connection with this file descriptor."""
        if self._supported:
            self._completed.add(descriptor)

    def enforce(self) -> int:
        """Every CHECK_INTERVAL_S: disconnect those above a limit. Returns how many."""
        if not self._supported or self._clock() - self._checked_at < CHECK_INTERVAL_S:
            return 0
        self._checked_at = self._clock()
        completed, self._completed = self._completed, set()
        received = self._bytes_received()
        self._baseline = {
            key: count if key[0] in completed else self._baseline.get(key, 0) for key, count in received.items()
        }
        unfinished = {key: count - self._baseline[key] for key, count in received.items()}
        disconnected, total = 0, sum(unfinished.values())
        for key, size in sorted(unfinished.items(), key=lambda pair: -pair[1]):
            if size > self._one_bytes or total > self._all_bytes:
                disconnected += self._disconnect(key)
                total -= size
        return disconnected

    def _bytes_received(self) -> dict[tuple[int, int], int]:
        """Bytes that each connection has received so far, by descriptor and number."""
        received = {}
        for descriptor, number in self._living().items():
            try:
                # Without a copy of the descriptor: a thousand connections are looked at five times a second.
                borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
            except OSError:
                continue  # closed meanwhile
            try:
                info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED + 8)
            except OSError:
                continue  # closed meanwhile, and the descriptor is another file's
            finally:
                borrowed.detach()
            if len(info) == _RECEIVED + 8:
                received[descriptor, number] = struct.unpack_from("=Q", info, _RECEIVED)[0]
        return received

    def _disconnect(self, key: tuple[int, int]) -> int:
        """Shut down the TCP connection under ZeroMQ, which then drops what it has of the message."""
        return shut_down(key[0]) if self._living().get(key[0]) == key[1] else 0
