# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses are encrypted, and that malformed handshakes or a silent authenticator admit no client."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import zmq

from dreamwright.backend.errors import ConfigError
from dreamwright.backend.server.app import Server
from dreamwright.backend.server.transport.router_socket import is_loopback_address
from dreamwright.backend.server.transport.zap_authenticator import ENDPOINT
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.credentials import format_key, generate_key_pair
from dreamwright.shared.messages import JobList, ListJobs
from tests.testing.encrypted_server import EncryptedServer
from tests.testing.scripted_worker_server import ScriptedRunner

# --- which doors are locked


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1", "tcp://:1", "tcp://127.0.0.1:port", "udp://127.0.0.1:1", "here"]
)
def test_invalid_addresses_are_refused(address):
    with pytest.raises(ConfigError, match="allowed"):
        is_loopback_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "tcp://0.0.0.0:47630",
        "tcp://*:0",
        "tcp://192.168.1.2:47630",
        "tcp://127.0.0.2:1",
        "tcp://[::]:1",
        "tcp://eth0:*",
        "tcp://127.0.0.1.evil.example:1",
    ],
)
def test_remote_addresses_need_keys(address: str, tmp_path: Path) -> None:
    assert not is_loopback_address(address)
    with pytest.raises(ConfigError, match=re.escape(f"dreamwright keys create --state {tmp_path / 'state'}")):
        Server(address, tmp_path / "state", ("cpu",))
    assert not (tmp_path / "state" / "jobs.sqlite3").exists()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:47630", "tcp://localhost:*", "tcp://[::1]:0"])
def test_loopback_needs_no_keys(address: str) -> None:
    assert is_loopback_address(address)


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:*", "tcp://127.0.0.2:*", "tcp://lo:*"])
def test_remote_addresses_are_always_encrypted(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encrypted_server = EncryptedServer(tmp_path / "state", monkeypatch, address, encrypt=False)
    try:
        port = encrypted_server.server.address.rpartition(":")[2]
        reachable = f"tcp://{'127.0.0.2' if '0.2' in address else '127.0.0.1'}:{port}"
        pair = generate_key_pair()
        encrypted_server.keys.allow("anna", format_key(pair.public))
        unencrypted, anna = (
            encrypted_server.connect_client(None, address=reachable),
            encrypted_server.connect_client(pair, address=reachable),
        )
        encrypted_server.wait_until(
            lambda: anna.state is ConnectionState.ONLINE and unencrypted.state is ConnectionState.UNAUTHORIZED
        )
    finally:
        encrypted_server.close()


@pytest.mark.parametrize("setting", ["an empty domain", "a domain that is not enforced"])
def test_sockets_that_ignore_encryption_are_not_opened(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting == "an empty domain":
        monkeypatch.setattr("dreamwright.backend.server.transport.zap_authenticator.DOMAIN", "")
    else:
        getsockopt_before = zmq.Socket.getsockopt
        monkeypatch.setattr(
            zmq.Socket,
            "getsockopt",
            lambda own, option: 0 if option == zmq.ZAP_ENFORCE_DOMAIN else getsockopt_before(own, option),
        )
    with pytest.raises(ConfigError, match="does not support the encryption settings"):
        EncryptedServer(tmp_path / "state", monkeypatch)


def test_loopback_names_that_resolve_elsewhere_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a hosts file gives localhost another address."""
    monkeypatch.setattr("dreamwright.backend.server.app.LocalRunner", ScriptedRunner)
    monkeypatch.setattr("dreamwright.backend.server.transport.router_socket.LOOPBACK", ("0.0.0.0",))
    with pytest.raises(ConfigError, match="which others may reach"):
        Server("tcp://0.0.0.0:*", tmp_path, ("cpu",))
    monkeypatch.undo()
    monkeypatch.setattr("dreamwright.backend.server.app.LocalRunner", ScriptedRunner)
    Server("tcp://127.0.0.1:*", tmp_path, ("cpu",)).close()  # the refused start released the folder


# --- malformed requests and handshakes


def test_malformed_zap_requests_are_refused(encrypted_server: EncryptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    anna = encrypted_server.authorized_client("anna")
    requester = encrypted_server.server._context.socket(zmq.DEALER)
    requester.setsockopt(zmq.LINGER, 0)
    requester.connect(ENDPOINT)
    key = anna.pair.public
    valid = [b"", b"1.0", b"1", b"dreamwright", b"127.0.0.1", b"", b"CURVE", key]
    malformed: list[list[bytes]] = [
        [b""],
        [b"x"] * 3,
        [b"\xff"] * 40,
        valid[:-1],
        [*valid, b""],
        [b"", b"9.9", *valid[2:]],
    ]
    malformed += [
        [*valid[:3], b"", *valid[4:]],
        [*valid[:6], b"NULL", key],
        [*valid[:6], b"PLAIN", b"anna", b"secret"],
        [*valid[:7], key[:31]],
        [*valid[:7], b"\xff" * 10**6],
    ]
    for parts in malformed:
        requester.send_multipart(parts)
    encrypted_server.run_for(0.2)
    while requester.poll(0):
        assert requester.recv_multipart()[3] != b"200", "no malformed request is accepted"
    requester.send_multipart(valid)
    encrypted_server.wait_until(lambda: bool(requester.poll(0)))
    assert requester.recv_multipart()[3:6] == [b"200", b"OK", format_key(key).encode()]
    requester.close()
    with monkeypatch.context() as patch:
        patch.setattr(encrypted_server.server._authenticator._authorized, "user_of", lambda key: 1 / 0)
        refused = encrypted_server.connect_client(generate_key_pair())
        encrypted_server.wait_until(lambda: refused.state is ConnectionState.UNAUTHORIZED)
    encrypted_server.authorized_client("bert")
    assert isinstance(encrypted_server.request(anna, ListJobs()), JobList)


def test_partial_handshakes_leave_the_server_running(encrypted_server: EncryptedServer) -> None:
    host, _, port = encrypted_server.server.address.removeprefix("tcp://").rpartition(":")
    connections = []
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(15) + b"\x00" + bytes(31)
    for data in (
        b"",
        b"\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 500,
        greeting[:11],
        greeting,
        greeting + b"\x04\xff" * 200,
        greeting + b"\x04\xc8\x05HELLO" + bytes(194),
    ):
        connection = socket.create_connection((host, int(port)))
        connection.sendall(data)
        connections.append(connection)
    encrypted_server.run_for(0.3)
    anna = encrypted_server.authorized_client("anna")
    assert isinstance(encrypted_server.request(anna, ListJobs()), JobList)
    for connection in connections:
        connection.close()


def test_no_client_connects_while_zap_does_not_answer(
    encrypted_server: EncryptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = generate_key_pair()
    encrypted_server.keys.allow("anna", format_key(pair.public))
    with monkeypatch.context() as patch:
        patch.setattr(encrypted_server.server._authenticator, "answer", lambda most=200: None)
        client = encrypted_server.connect_client(pair)
        encrypted_server.run_for(0.5)
        assert client.state is not ConnectionState.ONLINE
    encrypted_server.wait_until(lambda: client.state is ConnectionState.ONLINE)
