# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages of the wrong size, shape or version: the answer, and whether the connection stays."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from dreamwright.backend.server.transport import connection_limiter
from dreamwright.backend.server.transport.connection_limiter import ConnectionLimiter
from dreamwright.shared import limits
from dreamwright.shared.codec import pack, unpack
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.messages import JobList, ListJobs
from tests.testing.encrypted_server import EncryptedServer, raw_client
from tests.testing.fake_server import FakeServer


def reply_to(encrypted_server: EncryptedServer, connection: zmq.Socket, *frames: bytes, seconds: float = 1.0) -> Any:
    """(number, answer) to a message of these frames; None for none.

    The default waits for silence, where a busy machine can only miss an answer; an answer is waited for 10 s.
    """
    connection.send_multipart(list(frames))
    end = time.monotonic() + seconds
    while not connection.poll(0) and time.monotonic() < end:
        encrypted_server.step()
    return unpack(connection.recv(), limits.REPLY_BYTES) if connection.poll(0) else None


VALID = pack(ListJobs(), 7)
VERSION = limits.PROTOCOL_VERSION
UNKNOWN = msgpack.packb({"version": limits.PROTOCOL_VERSION, "id": 7, "type": "Explode", "body": {}})


def of_version(version: Any) -> bytes:
    return msgpack.packb({"version": version, "id": 7, "type": "ListJobs", "body": {}})


@pytest.mark.parametrize(
    ("frames", "number", "code", "words"),
    [
        ((b"x" * (limits.REQUEST_BYTES + 1),), 0, "bad-message", ("65537", "allowed are 65536")),
        ((b"",), 0, "bad-message", ("msgpack",)),
        ((UNKNOWN,), 7, "bad-message", ("'Explode'", "known are Hello")),
        ((VALID,) * 2, 0, "bad-message", ("2 frames", "allowed is one")),
        ((VALID,) * 600, 0, "bad-message", ("600 frames", "allowed is one")),
        ((b"",) * 600, 0, "bad-message", ("600 frames",)),
        ((b"", VALID), 0, "bad-message", ("2 frames",)),
        ((of_version(1),), 7, "version", (f"speaks protocol version 1, this one {VERSION}", "update the older")),
        (
            (of_version(VERSION + 1),),
            7,
            "version",
            (f"speaks protocol version {VERSION + 1}, this one {VERSION}", "update the older"),
        ),
        ((of_version(2**64 - 1),), 7, "version", (f"version 18446744073709551615, this one {VERSION}",)),
    ],
    ids=[
        "a byte too many",
        "empty",
        "unknown verb",
        "2 frames",
        "600 frames",
        "600 empty frames",
        "as REQ sends it",
        "version 1",
        "the next version",
        "version 2**64-1",
    ],
)
def test_malformed_message_is_refused_and_the_connection_stays(
    encrypted_server: EncryptedServer, frames: tuple[bytes, ...], number: int, code: str, words: tuple[str, ...]
) -> None:
    connection = raw_client(encrypted_server, encrypted_server.authorized_client("anna").pair)
    try:
        answered, refusal = reply_to(encrypted_server, connection, *frames, seconds=10.0)
        assert (answered, refusal.code) == (number, code)
        for word in words:
            assert word in refusal.message
        assert isinstance(reply_to(encrypted_server, connection, VALID, seconds=10.0)[1], JobList)
    finally:
        connection.close(0)


def test_huge_frame_ends_its_connection(
    encrypted_server: EncryptedServer,
) -> None:
    anna = encrypted_server.authorized_client("anna")
    connection = raw_client(encrypted_server, anna.pair)
    watch = connection.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    try:
        assert reply_to(encrypted_server, connection, b"x" * 10**6) is None
        encrypted_server.wait_until(lambda: bool(watch.poll(0)))
        assert isinstance(reply_to(encrypted_server, connection, VALID, seconds=10.0)[1], JobList), (
            "ZeroMQ reconnects by itself"
        )
        assert isinstance(encrypted_server.request(anna, ListJobs()), JobList)
    finally:
        connection.disable_monitor()
        watch.close(0)
        connection.close(0)


@pytest.mark.parametrize(("version", "older"), [(1, "server"), (VERSION + 1, "add-on"), ("\0new", "add-on")])
def test_version_mismatch_names_the_side_to_update(version: Any, older: str) -> None:
    from dreamwright.shared.client import Client

    server = FakeServer(pace=0)
    server.faults.version = version
    client = Client(server.address)
    client.connect()
    try:
        end = time.monotonic() + 10
        while client.state is not ConnectionState.INCOMPATIBLE and time.monotonic() < end:
            server.step(0.002)
            client.tick()
        assert (
            client.state is ConnectionState.INCOMPATIBLE
            and f"update the {older}" in client.reason
            and client.reason.isprintable()
        )
        assert f"the add-on {VERSION}" in client.reason and (str(version) in client.reason or "new" in client.reason)
    finally:
        client.close()
        server.close()


# --- messages without end


class Port:
    """A listener in this process, callers, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.connection_limiter = ConnectionLimiter(self.living, lambda: self.now, 100_000, 250_000)

    def living(self) -> dict[int, int]:
        return {pair[1].fileno(): number for number, pair in enumerate(self.pairs)}

    def call(self) -> tuple[socket.socket, socket.socket]:
        """(caller's end, our end)."""
        near = socket.create_connection(self.listener.getsockname(), timeout=10.0)
        self.pairs.append((near, self.listener.accept()[0]))
        return self.pairs[-1]

    def pass_on(self, pair: tuple[socket.socket, socket.socket], count: int) -> None:
        """So many bytes from the caller to us, taken in."""
        while count:
            part = min(count, 20_000)
            pair[0].sendall(bytes(part))
            taken = 0
            while taken < part:
                taken += len(pair[1].recv(part - taken))
            count -= part

    def look(self) -> int:
        self.now += 1.0
        return self.connection_limiter.enforce()


@pytest.fixture
def port() -> Any:
    port = Port()
    yield port
    for end in (port.listener, *[end for pair in port.pairs for end in pair]):
        end.close()


linux_only = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux counts the bytes of a connection"
)


@linux_only
def test_endless_message_ends_its_connection(port: Port) -> None:
    unfinished, complete, idle = port.call(), port.call(), port.call()
    for _ in range(6):
        port.pass_on(complete, 60_000)
        port.connection_limiter.message_completed(complete[1].fileno())
        assert port.look() == 0, "360 kB in all, but each of them a message"
    port.pass_on(unfinished, 99_000)
    assert port.look() == 0
    port.pass_on(unfinished, 2_000)
    assert port.look() == 1
    assert unfinished[0].recv(1) == b"" and port.look() >= 0
    idle[0].sendall(b"x")
    assert idle[1].recv(1) == b"x"
    port.pass_on(complete, 10)


@linux_only
def test_unfinished_messages_share_one_limit(port: Port) -> None:
    callers = [port.call() for _ in range(4)]
    for size, caller in zip((80_000, 90_000, 50_000, 60_000), callers, strict=False):
        port.pass_on(caller, size)
    assert port.look() == 1
    assert callers[1][0].recv(1) == b"", "the largest"
    callers[0][0].sendall(b"x")
    assert callers[0][1].recv(1) == b"x"


@linux_only
def test_limiter_survives_descriptors_that_are_closed_or_no_sockets(port: Port, tmp_path: Path) -> None:
    pair, gone = port.call(), port.call()
    port.pass_on(pair, 1000)
    with (tmp_path / "file").open("w") as file:
        descriptor = gone[1].detach()
        os.close(descriptor)
        limiter = ConnectionLimiter(
            lambda: {pair[1].fileno(): 1, descriptor: 2, file.fileno(): 3, 10**6: 4}, lambda: port.now, 500, 10_000
        )
        port.now += 1.0
        assert limiter.enforce() == 1, "the one that is a connection"
        file.write("still open")


@linux_only
def test_message_of_too_many_frames_ends_its_connection(
    encrypted_server: EncryptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        connection_limiter, "CHECK_INTERVAL_S", 0.0
    )  # at every step: a fast machine could receive the message whole before the first check
    anna, mallory = encrypted_server.authorized_client("anna"), encrypted_server.authorized_client("mallory")
    encrypted_server.server.limiter._one_bytes = 200_000
    connection = raw_client(encrypted_server, mallory.pair)
    watch = connection.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    try:
        assert isinstance(reply_to(encrypted_server, connection, VALID, seconds=10.0)[1], JobList)
        connection.send_multipart([bytes(60_000)] * 2000, copy=False)
        encrypted_server.wait_until(lambda: bool(watch.poll(0)))
        assert isinstance(encrypted_server.request(anna, ListJobs()), JobList)
        for _ in range(8):  # a client with complete messages may send many
            assert isinstance(encrypted_server.request(anna, ListJobs()), JobList)
        assert anna.state is ConnectionState.ONLINE
    finally:
        connection.disable_monitor()
        watch.close(0)
        connection.close(0)
