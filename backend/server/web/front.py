# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the web process, starts it again when it ends, and joins it to the server's loop.

It is a process of its own, so that neither a fault in it nor its load reaches the loop that serves Blender. It inherits
the listening socket, which outlives it, and one end of a socket pair that nobody else can open.
"""

from __future__ import annotations

import importlib.util
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ...errors import ConfigError
from ...io.child_process import close_stdin, start_child
from .address import WebAddress, open_listener
from .gateway import WebGateway

log = logging.getLogger(__name__)

MODULE = "dreamwright.backend.server.web.process"
LONGEST_BACKOFF_S = 60.0  # before a web process that ends at once is started again; 1 s at first, doubling
WaitFor = Callable[[socket.socket, bool, bool], None]  # (connection, for anything at all, also for room to send)
STEADY_S = 60.0  # after which a web process that ends counts as the first to end


def check_web_packages() -> None:
    """Raise ConfigError where the web page cannot run."""
    if sys.platform == "win32":
        raise ConfigError("--web needs Linux or macOS: the web process inherits its sockets; leave --web out")
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"--web needs the package {missing[0]}; install it with: pip install 'dreamwright[web]'")


class WebFront:
    """The web process of a server. Call `step` in the server's loop.

    `wait_for` is told the connections that the loop waits for, and whether also for room to send. Raises ConfigError
    for an address that cannot be used.
    """

    def __init__(
        self,
        address: WebAddress,
        gateway: WebGateway,
        wait_for: WaitFor,
        log_folder: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_web_packages()
        self.gateway = gateway
        self._address, self._wait_for, self._log_folder, self._clock = address, wait_for, log_folder, clock
        self._listener = open_listener(address)
        self.url = address.url(self._listener.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._failures, self._start_after, self._started = 0, clock(), 0.0
        self._start()

    def step(self) -> None:
        """Answer the calls of the web process, and start it again when it has ended."""
        if self._connection is None:
            if self._clock() >= self._start_after:
                self._start()
            return
        if not self.gateway.step():
            self._end_process()
            return
        self._wait_for(self._connection, True, self.gateway.has_unsent)

    def close(self) -> None:
        """End the web process and release the port."""
        self._stop(5.0)
        self._listener.close()

    def _start(self) -> None:
        own, its = socket.socketpair()
        request = {
            "channel": its.fileno(),
            "listener": self._listener.fileno(),
            "names": self._address.names,
            "certificate": None if self._address.certificate is None else str(self._address.certificate),
            "key": None if self._address.key is None else str(self._address.key),
        }
        try:
            self._log_folder.mkdir(parents=True, exist_ok=True)
            with (self._log_folder / "web.log").open("ab") as output:
                handles = (its.fileno(), self._listener.fileno())
                self._process = start_child(MODULE, request, output, pass_handles=handles)
        except OSError as error:  # a full disk, or the limit of processes
            log.warning("web process not started", extra={"why": str(error)})
            own.close()
            self._backoff()
            return
        finally:
            its.close()
        self._connection, self._started = own, self._clock()
        self.gateway.connect(own)
        self._wait_for(own, True, False)
        log.info("web process started", extra={"worker": self._process.pid})

    def _end_process(self) -> None:
        status = self._stop(0.0)
        log.warning("web process ended", extra={"status": status})
        if self._clock() - self._started > STEADY_S:
            self._failures = 0
        self._backoff()

    def _backoff(self) -> None:
        self._start_after = self._clock() + min(2.0**self._failures, LONGEST_BACKOFF_S)
        self._failures += 1

    def _stop(self, grace_s: float) -> int | None:
        """Close the channel, which ends the process, and kill it if it has not ended after the grace."""
        if self._connection is not None:
            self._wait_for(self._connection, False, False)
            self._connection = None
        self.gateway.disconnect()
        process, self._process = self._process, None
        if process is None:
            return None
        close_stdin(process)
        try:
            return process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
