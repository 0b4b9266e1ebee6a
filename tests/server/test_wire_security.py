# SPDX-License-Identifier: GPL-3.0-or-later
"""Eavesdropping, replay, forged routing ids and oversized frames on an encrypted connection."""

from __future__ import annotations

import hashlib
import logging
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zmq

from dreamwright.backend.server.monitoring.logging_setup import LogFormatter
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.shared import limits
from dreamwright.shared.client import Client
from dreamwright.shared.codec import pack, unpack
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.credentials import fingerprint, format_key, generate_key_pair
from dreamwright.shared.messages import (
    CancelJob,
    DeleteJob,
    Hello,
    JobList,
    JobReply,
    ListJobs,
    PauseJob,
    PinJob,
    ResumeJob,
    SetPriority,
    Subscribe,
)
from dreamwright.shared.transfer import Download
from tests.testing.encrypted_server import EncryptedServer, raw_client, relay_to
from tests.testing.scripted_worker_server import submit_message


def answer_to(encrypted_server: EncryptedServer, own: zmq.Socket, message: Any, seconds: float = 20.0) -> Any:
    """The reply, or None after `seconds`, which pass only where a reply is missing."""
    own.send(pack(message, 7))
    end = time.monotonic() + seconds
    while not own.poll(0) and time.monotonic() < end:
        encrypted_server.step()
    return unpack(own.recv(), limits.REPLY_BYTES)[1] if own.poll(0) else None


def test_eavesdropper_reads_no_prompt_mesh_or_name(encrypted_server: EncryptedServer) -> None:
    with relay_to(encrypted_server.server.address) as relay:
        anna = encrypted_server.authorized_client("anna", address=relay.address)
        prompt = "a red mushroom, a white mushroom"
        job = encrypted_server.request(anna, submit_message("a", prompt=prompt)).job.job
        encrypted_server.wait_until(lambda: encrypted_server.runner.given == [job])
        mesh = b"the mesh of a prop nobody has seen " * 4000
        (encrypted_server.store.job_folder(job) / MESH_FILE).write_bytes(mesh)
        encrypted_server.store.update_in_memory(job, mesh_bytes=len(mesh), mesh_sha256=hashlib.sha256(mesh).hexdigest())
        arrived: list[Any] = []
        Download(anna, job, "mesh", len(mesh), arrived.append).start()
        encrypted_server.wait_until(lambda: bool(arrived))
        assert arrived == [mesh]
        received = bytes(relay.up + relay.down)
    assert len(relay.down) > len(mesh), "it did pass there"
    for word in (
        prompt,
        "mushroom",
        "starter",
        "draft",
        job,
        "nobody has seen",
        "SubmitJob",
        "anna",
        format_key(anna.pair.public),
    ):
        assert word.encode() not in received, word
    for secret in (anna.pair.public, anna.pair.secret, encrypted_server.pair.secret):
        assert secret not in received, "not even the public key says who comes"


def test_relay_records_unencrypted_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ear of the test above is a good one."""
    encrypted_server = EncryptedServer(tmp_path / "state", monkeypatch, encrypt=False)
    try:
        with relay_to(encrypted_server.server.address) as relay:
            client = encrypted_server.connect_client(None, address=relay.address)
            encrypted_server.wait_until(lambda: client.state is ConnectionState.ONLINE)
            encrypted_server.request(client, submit_message("a"))
            assert b"a red mushroom" in bytes(relay.up)
    finally:
        encrypted_server.close()


def test_replayed_session_bytes_do_nothing(encrypted_server: EncryptedServer) -> None:
    with relay_to(encrypted_server.server.address) as relay:
        anna = encrypted_server.authorized_client("anna", address=relay.address)
        job = encrypted_server.request(anna, submit_message("a")).job.job
        encrypted_server.request(anna, CancelJob(job))
        recorded = bytes(relay.up)
    jobs = set(encrypted_server.store.records)
    received: list[Any] = []
    answering, encrypted_server.server._answer = (
        encrypted_server.server._answer,
        lambda message: received.append(message.frame.bytes),
    )
    host, _, port = encrypted_server.server.address.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port))) as attacker:
        anna.close()  # or its own heartbeats would be received
        encrypted_server.clients.remove(anna)
        encrypted_server.run_for(0.1)
        received.clear()
        attacker.sendall(recorded)
        encrypted_server.run_for(0.5)
    encrypted_server.server._answer = answering
    assert not received and set(encrypted_server.store.records) == jobs
    encrypted_server.authorized_client("bert")


@pytest.mark.parametrize("first", ["the user", "the attacker"])
def test_routing_id_is_no_identity(encrypted_server: EncryptedServer, first: str) -> None:
    """Two keys under one routing id: neither client receives the other's replies or owns its jobs."""
    pairs = {name: generate_key_pair() for name in ("anna", "bert")}
    for name, pair in pairs.items():
        encrypted_server.keys.allow(name, format_key(pair.public))
    order = ("anna", "bert") if first == "the user" else ("bert", "anna")
    one = raw_client(encrypted_server, pairs[order[0]], b"the same id")
    refusal = answer_to(encrypted_server, one, ListJobs())
    assert refusal.code == "bad-message" and "let ZeroMQ choose the routing id" in refusal.message
    two = raw_client(encrypted_server, pairs[order[1]], b"the same id")
    two.send(pack(Subscribe(), 9))
    encrypted_server.run_for(0.3)
    assert not one.poll(0) and not two.poll(0) and not len(encrypted_server.server.publisher)
    authorized = raw_client(encrypted_server, pairs["anna"])
    assert isinstance(answer_to(encrypted_server, authorized, Hello("c" * 32, "test")), object)
    assert isinstance(answer_to(encrypted_server, authorized, ListJobs()), JobList)
    for own in (one, two, authorized):
        own.close(0)


def test_handshakes_and_connections_time_out(encrypted_server: EncryptedServer) -> None:
    assert encrypted_server.server.router.socket.getsockopt(zmq.HANDSHAKE_IVL) == 10_000
    assert (
        encrypted_server.server.router.socket.getsockopt(zmq.MAXMSGSIZE)
        == limits.REQUEST_BYTES + limits.ENCRYPTION_OVERHEAD_BYTES
    )
    assert (
        encrypted_server.server.router.socket.getsockopt(zmq.HEARTBEAT_IVL) > 0
        and encrypted_server.server.router.socket.getsockopt(zmq.HEARTBEAT_TIMEOUT) > 0
    )


def test_oversized_frame_ends_only_its_connection(encrypted_server: EncryptedServer) -> None:
    anna, bert = encrypted_server.authorized_client("anna"), encrypted_server.authorized_client("bert")
    big = raw_client(encrypted_server, bert.pair)
    big.send(b"x" * (limits.REQUEST_BYTES + limits.ENCRYPTION_OVERHEAD_BYTES))
    encrypted_server.run_for(0.3)
    assert isinstance(encrypted_server.request(anna, ListJobs()), JobList) and isinstance(
        encrypted_server.request(bert, ListJobs()), JobList
    )
    big.close(0)


def test_log_names_no_key_and_no_prompt(encrypted_server: EncryptedServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        anna = encrypted_server.authorized_client("anna")
        encrypted_server.request(anna, submit_message("a"))
        unknown_pair = generate_key_pair()
        unauthorized = encrypted_server.connect_client(unknown_pair)
        encrypted_server.wait_until(lambda: unauthorized.state is ConnectionState.UNAUTHORIZED)
    written = "\n".join(
        LogFormatter(style, logging.INFO).format(record) for style in ("text", "json") for record in caplog.records
    )
    assert "user connects user=anna" in written and f"fingerprint={fingerprint(unknown_pair.public)}" in written
    for word in (format_key(anna.pair.public), format_key(unknown_pair.public), anna.pair.secret.hex(), "mushroom"):
        assert word not in written
    assert anna.pair.secret.hex() not in repr(CurveCredentials(encrypted_server.pair.public, anna.pair))
    assert isinstance(anna, Client)


TICKETS, TIMES = 20, 5


def authorized_socket(encrypted_server: EncryptedServer, name: str) -> zmq.Socket:
    """A socket whose key the server has authorized under `name`."""
    pair = generate_key_pair()
    encrypted_server.keys.allow(name, format_key(pair.public))
    return raw_client(encrypted_server, pair)


def answers(
    encrypted_server: EncryptedServer, own: zmq.Socket, sent: list[bytes], seconds: float = 60.0
) -> list[tuple[int, Any]]:
    """(number, reply) of each."""
    end, received = time.monotonic() + seconds, []
    for data in sent:
        own.send(data)
        encrypted_server.step()
    while len(received) < len(sent):
        assert time.monotonic() < end, received
        encrypted_server.step()
        while own.poll(0):
            received.append(unpack(own.recv(), limits.REPLY_BYTES))
    return received


def test_repeated_submits_make_one_job_per_ticket_and_user(
    encrypted_server: EncryptedServer,
) -> None:
    anna, bert = authorized_socket(encrypted_server, "anna"), authorized_socket(encrypted_server, "bert")
    sent = [pack(submit_message(f"t{number}"), 7) for _ in range(TIMES) for number in range(TICKETS)]
    jobs: dict[str, Counter[str]] = {}
    for name, own in (("anna", anna), ("bert", bert)):
        received = answers(encrypted_server, own, sent)
        assert {number for number, _ in received} == {7} and all(isinstance(reply, JobReply) for _, reply in received)
        jobs[name] = Counter(reply.job.job for _, reply in received)
        assert len(jobs[name]) == TICKETS and set(jobs[name].values()) == {TIMES}
    assert not set(jobs["anna"]) & set(jobs["bert"]), "the same bytes with another key are another user's"
    assert Counter(entry.owner for entry in encrypted_server.store.records.values()) == {
        "anna": TICKETS,
        "bert": TICKETS,
    }
    for own in (anna, bert):
        own.close(0)


@pytest.mark.parametrize(
    "make", [CancelJob, PauseJob, ResumeJob, lambda job: PinJob(job, True), lambda job: SetPriority(job, -3)]
)
def test_repeated_requests_change_nothing_more(make: Any, encrypted_server: EncryptedServer) -> None:
    anna = authorized_socket(encrypted_server, "anna")
    first, job = (
        reply.job.job
        for _, reply in answers(encrypted_server, anna, [pack(submit_message("a"), 1), pack(submit_message("b"), 2)])
    )
    encrypted_server.wait_until(lambda: encrypted_server.runner.given == [first])
    if make is ResumeJob:
        answers(encrypted_server, anna, [pack(PauseJob(job), 3)])
    ((_, once),) = answers(encrypted_server, anna, [pack(make(job), 9)])
    for _, again in answers(encrypted_server, anna, [pack(make(job), 9)] * 10):
        assert again == once, "the same answer, down to the number of the change"
    anna.close(0)


def test_repeated_delete_removes_one_job(
    encrypted_server: EncryptedServer,
) -> None:
    anna = authorized_socket(encrypted_server, "anna")
    first, job = (
        reply.job.job
        for _, reply in answers(encrypted_server, anna, [pack(submit_message("a"), 1), pack(submit_message("b"), 2)])
    )
    answers(encrypted_server, anna, [pack(CancelJob(job), 3)])
    received = [
        type(reply).__name__ + getattr(reply, "code", "")
        for _, reply in answers(encrypted_server, anna, [pack(DeleteJob(job), 4)] * 3)
    ]
    assert received == ["Done", "Refusalno-such-job", "Refusalno-such-job"] and set(encrypted_server.store.records) == {
        first
    }
    anna.close(0)
