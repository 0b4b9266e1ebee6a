# SPDX-License-Identifier: GPL-3.0-or-later
"""A cable that can be cut or go silent: a TCP relay between a client and a server that counts what passes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

BLOCK = 1 << 16


class LooseCable:
    """Forwards TCP both ways. `address` is what a client connects to."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.down_bytes = 0  # from the server to the client
        self.cuts = 0
        self.on_data: Callable[[], None] = lambda: None  # called from a thread, after data went down
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
                near.close()  # no server: whoever called sees a connection that closes at once
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
        """Both ends see their connection close; a new one may be made at once."""
        self.cuts += 1
        ends, self._open = self._open, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def hush(self, silent: bool) -> None:
        """Nothing passes any more, and nobody is told; or it flows again, with what was on the way."""
        if silent:
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
