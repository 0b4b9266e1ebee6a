# SPDX-License-Identifier: GPL-3.0-or-later
"""How much each connection of a port has sent since its last whole message, and an end to those that send one without end.

ZeroMQ bounds the frames of a message in size and the messages in number, but not the frames of a message in number: it
takes in a message of a million frames whole before anybody may refuse it. What it has read of one is not to be had from
it; the kernel, though, counts the bytes of each connection (Linux: TCP_INFO). No knowledge of ZeroMQ here.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
from collections.abc import Callable

LOOK_S = 0.2  # between two looks: what comes in meanwhile is more than was allowed, 25 MB at 1 Gbit/s
ONE_BYTES = (
    16 * 1024 * 1024
)  # of one connection without a whole message: 64 waiting ones of 64 KiB and what the kernel holds are 10
ALL_BYTES = 256 * 1024 * 1024  # of all connections together; then the largest goes first
_RECEIVED = 128  # where tcp_info holds tcpi_bytes_received, 64 bits (linux/tcp.h; since Linux 4.1)


class ConnectionLimiter:
    """The connections of this process at one local port. Only Linux counts; elsewhere nothing is seen and nothing cut."""

    def __init__(
        self, port: int, clock: Callable[[], float], one_bytes: int = ONE_BYTES, all_bytes: int = ALL_BYTES
    ) -> None:
        self._port, self._clock = port, clock
        self._one, self._all = one_bytes, all_bytes
        self._looked = clock()
        self._spoke: set[int] = set()  # files of the connections that whole messages came from since the last look
        self._before: dict[
            tuple[int, int], int
        ] = {}  # by file and inode: bytes received when its last message was seen

    def heard(self, file: int) -> None:
        """A whole message came over the connection that is this process's open file `file`."""
        self._spoke.add(file)

    def look(self) -> int:
        """Now and then: hang up on who has sent too much without ending a message. Returns how many."""
        if self._clock() - self._looked < LOOK_S or not sys.platform.startswith("linux"):
            return 0
        self._looked = self._clock()
        spoke, self._spoke = self._spoke, set()
        now = self._received()
        self._before = {key: count if key[0] in spoke else self._before.get(key, 0) for key, count in now.items()}
        waiting = {key: count - self._before[key] for key, count in now.items()}
        cut, total = 0, sum(waiting.values())
        for key, size in sorted(waiting.items(), key=lambda pair: -pair[1]):
            if size > self._one or total > self._all:
                cut += self._hang_up(key)
                total -= size
        return cut

    def _received(self) -> dict[tuple[int, int], int]:
        """Bytes that each connection of the port has received since it was made, by file and inode."""
        found = {}
        for name in os.listdir("/proc/self/fd"):
            file = int(name)
            try:
                status = os.fstat(file)
                if not stat.S_ISSOCK(status.st_mode):
                    continue
                with socket.socket(fileno=os.dup(file)) as copy:
                    if copy.family in (socket.AF_INET, socket.AF_INET6) and copy.getsockname()[1] == self._port:
                        told = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED + 8)
                        if len(told) == _RECEIVED + 8:
                            found[file, status.st_ino] = struct.unpack_from("=Q", told, _RECEIVED)[0]
            except OSError:
                continue  # it was closed meanwhile
        return found

    def _hang_up(self, key: tuple[int, int]) -> int:
        """Close the wire under ZeroMQ, which then throws away what it has of the message."""
        try:
            if os.fstat(key[0]).st_ino != key[1]:
                return 0
            with socket.socket(fileno=os.dup(key[0])) as copy:
                copy.shutdown(socket.SHUT_RDWR)
        except OSError:
            return 0  # it hung up by itself
        return 1
