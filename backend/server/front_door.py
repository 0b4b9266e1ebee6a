# SPDX-License-Identifier: GPL-3.0-or-later
"""The one port that artists reach: a ROUTER that answers requests and sends events, in one thread."""

from __future__ import annotations

import logging
import secrets
import time
from pathlib import Path
from typing import Any, Callable

import zmq
from filelock import FileLock, Timeout

from dreamwright.backend.errors import CheckpointError, ConfigError
from dreamwright.backend.server.audience import Audience
from dreamwright.backend.server.foreman import Foreman
from dreamwright.backend.server.ledger import Ledger
from dreamwright.backend.server.service import Service
from dreamwright.shared import __version__, limits
from dreamwright.shared.faults import ProtocolError, Refused
from dreamwright.shared.messages import Refusal, VersionMismatch, pack, unpack

log = logging.getLogger(__name__)

LOCAL = "local"  # owner of all jobs on a loopback address, where everybody is the same person


class FrontDoor:
    """A server: `step` does what there is to do; `run` repeats it until told to stop."""

    def __init__(self, address: str, state: Path, devices: tuple[str, ...]) -> None:
        check_address(address)
        state.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(state / "lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise CheckpointError(f"another server uses {state}; stop it, or choose another folder with --state") from error
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # tell who is gone instead of dropping in silence
        self._socket.setsockopt(zmq.SNDHWM, 64)
        self._socket.setsockopt(zmq.RCVHWM, 64)
        self._socket.setsockopt(zmq.MAXMSGSIZE, limits.REQUEST_BYTES)
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, 10_000)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            self._lock.release()
            raise ConfigError(f"cannot listen on {address}: {error}; stop what uses it, or choose another with --address") from error
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._ledger = Ledger(state)
        self._foreman = Foreman(self._context, devices, state / "logs")
        self._audience = Audience(self._send_event, time.monotonic)
        epoch = secrets.token_hex(8)
        software = f"dreamwright {__version__}"
        self.service = Service(self._ledger, self._foreman, self._audience, devices, software, epoch)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._foreman.socket, zmq.POLLIN)

    def step(self, wait_s: float = 0.1) -> None:
        """Wait for something to happen, at most `wait_s`, and deal with it."""
        self._poller.poll(int(1000 * wait_s))
        for _ in range(200):  # then the workers get their turn, however much is asked
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            if len(parts) == 2:
                self._answer(parts[0].bytes, parts[1].bytes)
        self.service.work()

    def run(self, stopping: Callable[[], bool]) -> None:
        """Serve until `stopping` says so, then close."""
        try:
            while not stopping():
                self.step()
        finally:
            self.close()

    def close(self) -> None:
        """End the workers (their checkpoints keep what was done) and let go of port and folder."""
        self._foreman.close()
        self._ledger.close()
        self._context.destroy(linger=0)
        self._lock.release()

    def _answer(self, route: bytes, data: bytes) -> None:
        number = 0
        try:
            number, request = unpack(data, limits.REQUEST_BYTES)
            reply = self.service.answer(request, LOCAL, route)
        except VersionMismatch as error:
            number, reply = error.number, Refusal("version", str(error))
        except ProtocolError as error:
            reply = Refusal("bad-message", str(error)[: limits.MESSAGE_CHARACTERS])
        except Refused as refused:
            reply = Refusal(refused.code, refused.message[: limits.MESSAGE_CHARACTERS])
        except Exception:
            log.exception("a request failed")
            reply = Refusal("internal", "the server failed on this request; its log says more")
        if reply is not None:
            self._send(route, pack(reply, number))

    def _send_event(self, route: bytes, event: Any) -> bool:
        return self._send(route, pack(event, 0))

    def _send(self, route: bytes, data: bytes) -> bool:
        """False when the peer is gone. A peer that reads too slowly loses the message, and will see the gap."""
        try:
            self._socket.send_multipart([route, data], zmq.NOBLOCK)
        except zmq.Again:
            log.info("a slow client loses a message")
        except zmq.ZMQError:
            return False
        return True


def check_address(address: str) -> None:
    """Only loopback until connections are encrypted. Raises ConfigError."""
    host = address.removeprefix("tcp://").rpartition(":")[0]
    if not address.startswith("tcp://") or not host:
        raise ConfigError(f"the address is {address!r}; allowed is tcp://HOST:PORT, for example tcp://127.0.0.1:47630")
    if host not in ("127.0.0.1", "localhost", "[::1]"):
        raise ConfigError(
            f"the address is {address!r}; allowed are loopback addresses only, since connections are not encrypted yet; "
            "reach this machine through an SSH tunnel (ssh -L 47630:127.0.0.1:47630 HOST)"
        )
