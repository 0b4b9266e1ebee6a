# SPDX-License-Identifier: GPL-3.0-or-later
"""An encrypted server with scripted workers, clients with their own keys, and a TCP relay that records the traffic."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from dreamwright.backend.server.app import Server
from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from dreamwright.shared import limits
from dreamwright.shared.client import Client
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.credentials import KeyPair, format_key, generate_key_pair
from tests.testing.scripted_worker_server import ScriptedRunner


class EncryptedServer:
    """A CURVE-encrypted server and its clients, all in one thread."""

    def __init__(
        self, state: Path, monkeypatch: pytest.MonkeyPatch, address: str = "tcp://127.0.0.1:*", encrypt: bool = True
    ) -> None:
        monkeypatch.setattr("dreamwright.backend.server.app.LocalRunner", ScriptedRunner)
        self.keys = KeyFolder(state)
        self.pair = self.keys.create()
        self.server = Server(address, state, ("cpu",), encrypt)
        self.clients: list[Client] = []
        self.events: dict[Client, list[Any]] = {}
        self.clock_offset_s = 0.0

    @property
    def runner(self) -> ScriptedRunner:
        return self.server.runner

    @property
    def store(self) -> Any:
        return self.server.store

    def clock(self) -> float:
        return time.monotonic() + self.clock_offset_s

    def connect_client(
        self, own: KeyPair | None, server: bytes | None = None, address: str = "", prepare: Any = lambda socket: None
    ) -> Client:
        """Start connecting a client, without waiting for the result."""
        lock = None if own is None else CurveCredentials(server or self.pair.public, own)
        client = Client(address or self.server.address, clock=self.clock, prepare=prepare, credentials=lock)
        client.connect()
        self.clients.append(client)
        self.events[client] = []
        return client

    def authorized_client(self, name: str, is_admin: bool = False, **how: Any) -> Client:
        """A connected client whose key is authorized under `name`."""
        pair = generate_key_pair()
        self.keys.allow(name, format_key(pair.public), is_admin)
        client = self.connect_client(pair, **how)
        client.pair = pair
        self.wait_until(lambda: client.state is ConnectionState.ONLINE)
        return client

    def step(self) -> None:
        self.server.step(0.005)
        for client in self.clients:
            self.events[client] += client.tick()

    def wait_until(self, condition: Callable[[], bool], limit_s: float = 10.0) -> None:
        end = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(
                    f"condition not met; clients: {[(client.state, client.reason) for client in self.clients]}"
                )
            self.step()

    def run_for(self, seconds: float = 0.3) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.step()

    def request(self, client: Client, message: Any) -> Any:
        answers: list[Any] = []
        client.request(message, answers.append)
        self.wait_until(lambda: bool(answers))
        return answers[0]

    def skip_reconnect_delay(self) -> None:
        """Advance the clients' clock past the delay before they reconnect."""
        self.clock_offset_s += limits.HEARTBEAT_S * limits.HEARTBEAT_LIVENESS + 0.1

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.server.close()


@pytest.fixture
def encrypted_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EncryptedServer]:
    encrypted_server = EncryptedServer(tmp_path / "state", monkeypatch)
    yield encrypted_server
    encrypted_server.close()


class Relay:
    """Forwards TCP in both directions and records the bytes of each."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.up, self.down = bytearray(), bytearray()
        self._open: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for source, sink, kept in ((near, far, self.up), (far, near, self.down)):
                    threading.Thread(target=self._pass, args=(source, sink, kept), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                kept += data
                sink.sendall(data)

    def close(self) -> None:
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def raw_client(encrypted_server: EncryptedServer, pair: Any, routing_id: bytes = b"") -> zmq.Socket:
    """A ZeroMQ socket with a key pair, without `Client` around it."""
    own = zmq.Context.instance().socket(zmq.DEALER)
    own.setsockopt(zmq.LINGER, 0)
    CurveCredentials(encrypted_server.pair.public, pair).apply_to(own)
    if routing_id:
        own.setsockopt(zmq.ROUTING_ID, routing_id)
    own.connect(encrypted_server.server.address)
    return own


@contextlib.contextmanager
def relay_to(address: str) -> Iterator[Relay]:
    relay = Relay(address)
    try:
        yield relay
    finally:
        relay.close()
