# SPDX-License-Identifier: GPL-3.0-or-later
"""A TCP proxy whose connections can be closed or stalled, and that counts the bytes it forwards."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

BLOCK = 1 << 16


class FlakyTcpProxy:
    """Forwards TCP both ways. `address` is what a client connects to."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.down_bytes = 0  # from the server to the client
        self.cuts = 0
        self.on_data: Callable[[], None] = lambda: None  # called from a thread after data was sent to the client
        self._flowing = threading.Event()
        self._flowing.set()
        self._open: list[socket.socket] = []
        self._is_over = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self._is_over:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()  # no server: the client sees its connection close at once
                continue
            self._open += [near, far]
            for source, sink, down in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._pass, args=(source, sink, down), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, down: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(BLOCK):
                self._flowing.wait()
                sink.sendall(data)
                if down:
                    self.down_bytes += len(data)
                    self.on_data()
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Close all connections at both ends. New ones are accepted at once."""
        self.cuts += 1
        ends, self._open = self._open, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def set_stalled(self, stalled: bool) -> None:
        """Stop forwarding without closing any connection, or forward again, including the data held back."""
        if stalled:
            self._flowing.clear()
        else:
            self._flowing.set()

    def close(self) -> None:
        self._is_over = True
        self._flowing.set()
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
