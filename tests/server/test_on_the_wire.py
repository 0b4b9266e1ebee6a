# SPDX-License-Identifier: GPL-3.0-or-later
"""What a listener, a thief or a rude guest on the wire learns and gets: nothing."""

from __future__ import annotations

import hashlib
import logging
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import zmq

from dreamwright.backend.server.monitoring.logging_setup import Lines
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.shared import limits
from dreamwright.shared.client import Client, Link
from dreamwright.shared.connection_monitor import Lock
from dreamwright.shared.credentials import fingerprint, key_text, new_pair
from dreamwright.shared.download import Download
from dreamwright.shared.messages import Cancel, Hello, JobList, ListJobs, Subscribe, pack, unpack
from tests.testing.encrypted_server import Street, relay_to, street  # noqa: F401 (street is a fixture)
from tests.testing.scripted_worker_server import asked


def raw_guest(street: Street, pair: Any, routing_id: bytes = b"") -> zmq.Socket:
    """A socket without our client around it."""
    own = zmq.Context.instance().socket(zmq.DEALER)
    own.setsockopt(zmq.LINGER, 0)
    Lock(street.pair.public, pair).put_on(own)
    if routing_id:
        own.setsockopt(zmq.ROUTING_ID, routing_id)
    own.connect(street.door.address)
    return own


def answer_to(street: Street, own: zmq.Socket, message: Any, seconds: float = 3.0) -> Any:
    own.send(pack(message, 7))
    end = time.monotonic() + seconds
    while not own.poll(0) and time.monotonic() < end:
        street.turn()
    return unpack(own.recv(), limits.REPLY_BYTES)[1] if own.poll(0) else None


def test_a_listener_on_the_wire_reads_neither_prompt_nor_mesh_nor_names(street: Street) -> None:
    with relay_to(street.door.address) as relay:
        anna = street.guest("anna", address=relay.address)
        prompt = "a red mushroom, a white mushroom"
        job = street.ask(anna, asked("a", prompt=prompt)).job.job
        street.until(lambda: street.foreman.given == [job])
        mesh = b"the mesh of a prop nobody has seen " * 4000
        (street.ledger.job_folder(job) / MESH_FILE).write_bytes(mesh)
        street.ledger.note(job, mesh_bytes=len(mesh), mesh_sha256=hashlib.sha256(mesh).hexdigest())
        arrived: list[Any] = []
        Download(anna, job, "mesh", len(mesh), arrived.append).start()
        street.until(lambda: bool(arrived))
        assert arrived == [mesh]
        heard = bytes(relay.up + relay.down)
    assert len(relay.down) > len(mesh), "it did pass there"
    for word in (
        prompt,
        "mushroom",
        "starter",
        "draft",
        job,
        "nobody has seen",
        "Submit",
        "anna",
        key_text(anna.pair.public),
    ):
        assert word.encode() not in heard, word
    for secret in (anna.pair.public, anna.pair.secret, street.pair.secret):
        assert secret not in heard, "not even the public key says who comes"


def test_the_relay_would_hear_a_prompt_that_is_not_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ear of the test above is a good one."""
    street = Street(tmp_path / "state", monkeypatch, encrypt=False)
    try:
        with relay_to(street.door.address) as relay:
            client = street.comes(None, address=relay.address)
            street.until(lambda: client.link is Link.ONLINE)
            street.ask(client, asked("a"))
            assert b"a red mushroom" in bytes(relay.up)
    finally:
        street.close()


def test_recorded_bytes_of_a_session_that_are_sent_again_do_nothing(street: Street) -> None:
    with relay_to(street.door.address) as relay:
        anna = street.guest("anna", address=relay.address)
        job = street.ask(anna, asked("a")).job.job
        street.ask(anna, Cancel(job))
        recorded = bytes(relay.up)
    jobs = set(street.ledger.entries)
    heard: list[Any] = []
    answering, street.door._answer = street.door._answer, lambda route, frame: heard.append(frame.bytes)
    host, _, port = street.door.address.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port))) as thief:
        anna.close()  # or her own signs of life would be heard
        street.clients.remove(anna)
        street.for_a_while(0.1)
        heard.clear()
        thief.sendall(recorded)
        street.for_a_while(0.5)
    street.door._answer = answering
    assert not heard and set(street.ledger.entries) == jobs
    street.guest("bert")


@pytest.mark.parametrize("first", ["the guest", "the thief"])
def test_a_routing_id_is_no_identity(street: Street, first: str) -> None:
    """Two keys under one routing id: nobody hears the other's replies, and neither owns anything by it."""
    pairs = {name: new_pair() for name in ("anna", "bert")}
    for name, pair in pairs.items():
        street.keys.allow(name, key_text(pair.public))
    order = ("anna", "bert") if first == "the guest" else ("bert", "anna")
    one = raw_guest(street, pairs[order[0]], b"the same id")
    refusal = answer_to(street, one, ListJobs())
    assert refusal.code == "bad-message" and "let ZeroMQ choose the routing id" in refusal.message
    two = raw_guest(street, pairs[order[1]], b"the same id")
    two.send(pack(Subscribe(), 9))
    street.for_a_while(0.3)
    assert not one.poll(0) and not two.poll(0) and not len(street.door._audience)
    honest = raw_guest(street, pairs["anna"])
    assert isinstance(answer_to(street, honest, Hello("c" * 32, "test")), object)
    assert isinstance(answer_to(street, honest, ListJobs()), JobList)
    for own in (one, two, honest):
        own.close(0)


def test_a_client_that_vanishes_mid_handshake_is_let_go_in_time(street: Street) -> None:
    assert street.door._socket.getsockopt(zmq.HANDSHAKE_IVL) == 10_000
    assert street.door._socket.getsockopt(zmq.MAXMSGSIZE) == limits.REQUEST_BYTES + limits.SEALING_BYTES
    assert (
        street.door._socket.getsockopt(zmq.HEARTBEAT_IVL) > 0
        and street.door._socket.getsockopt(zmq.HEARTBEAT_TIMEOUT) > 0
    )


def test_a_frame_that_is_too_large_ends_that_connection_only(street: Street) -> None:
    anna, bert = street.guest("anna"), street.guest("bert")
    big = raw_guest(street, bert.pair)
    big.send(b"x" * (limits.REQUEST_BYTES + limits.SEALING_BYTES))
    street.for_a_while(0.3)
    assert isinstance(street.ask(anna, ListJobs()), JobList) and isinstance(street.ask(bert, ListJobs()), JobList)
    big.close(0)


def test_the_servers_log_names_no_key_and_no_prompt(street: Street, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        anna = street.guest("anna")
        street.ask(anna, asked("a"))
        stranger_pair = new_pair()
        stranger = street.comes(stranger_pair)
        street.until(lambda: stranger.link is Link.BARRED)
    written = "\n".join(
        Lines(style, logging.INFO).format(record) for style in ("text", "json") for record in caplog.records
    )
    assert "user connects user=anna" in written and f"fingerprint={fingerprint(stranger_pair.public)}" in written
    for word in (key_text(anna.pair.public), key_text(stranger_pair.public), anna.pair.secret.hex(), "mushroom"):
        assert word not in written
    assert anna.pair.secret.hex() not in repr(Lock(street.pair.public, anna.pair))
    assert isinstance(anna, Client)
