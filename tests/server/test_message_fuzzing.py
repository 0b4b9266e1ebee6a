# SPDX-License-Identifier: GPL-3.0-or-later
"""Malformed messages get one answer each and end neither server nor client nor the worker port.

`tests/soak/fuzz_server.py` sends 100,000 to a real encrypted server; docs/operator/reliability.md has its figures.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from dreamwright.backend.server.transport.router_socket import Request
from dreamwright.backend.server.workers.worker_protocol import ProgressReport, pack_order, unpack_order
from dreamwright.shared import limits
from dreamwright.shared.codec import check_request, pack, unpack
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.errors import ProtocolError, RequestError
from dreamwright.shared.messages import JobChanged, JobList, ListJobs, PreviewAck, Refusal, SubmitJob
from dreamwright.shared.subscription import JOBS_REMEMBERED
from tests.blender.test_messages import JOB
from tests.soak.fuzz_client import FuzzedClient, fuzz_client, fuzz_orders
from tests.soak.fuzz_server import decoded, fuzz_in_process
from tests.testing.encrypted_server import EncryptedServer, raw_client
from tests.testing.message_mutations import MessageMutations, nested
from tests.testing.message_strategies import REQUESTS
from tests.testing.scripted_worker_server import ScriptedServer


def envelope(**changes: Any) -> bytes:
    return msgpack.packb(
        {"version": limits.PROTOCOL_VERSION, "id": 7, "type": "CancelJob", "body": {"job": "j"}} | changes
    )


def deep(depth: int) -> bytes:
    """A right envelope of a Cancel whose job is so many lists."""
    head, tail = envelope(body={"job": 77}).split(b"\x4d")
    return head + nested(depth) + tail


def replies_to(scripted_server: ScriptedServer, data: bytes) -> list[tuple[int, Any]]:
    """The replies of the server to these bytes."""
    sent: list[bytes] = []
    router = scripted_server.server.router
    send, router.send = router.send, lambda route, data: sent.append(data) is None
    scripted_server.server._answer(Request(b"\0abcd", zmq.Frame(data), 1))
    router.send = send
    return [unpack(data, limits.REPLY_BYTES) for data in sent]


# Each of them once got no answer, the wrong one, or ended the server.
CORPUS = {
    "NUL as version": (envelope(version="\0"), 7, "version"),  # the refusal could not be packed, and the server ended
    "lists as version": (envelope(version=[[[[]]]] * 3), 7, "version"),
    "lists as type": (envelope(type=[[]]), 7, "bad-message"),
    "NUL in a type": (envelope(type="a\0b"), 7, "bad-message"),
    "1020 lists as job": (deep(1020), 7, "bad-message"),
    "100,000 lists": (nested(100_000)[: limits.REQUEST_BYTES], 0, "bad-message"),
    "nothing": (b"", 0, "bad-message"),
    "a field that nobody knows": (envelope(body={"job": "j", "\u202e": 1}), 7, "bad-message"),
    "a home folder of nobody": (
        pack(SubmitJob("t", "a red mushroom", "", "~nobody-of-this-name/x", "draft", 0, {}), 7),
        7,
        "bad-input",
    ),  # was "internal"
    "a folder that is no model": (
        pack(SubmitJob("t", "a red mushroom", "", "/", "draft", 0, {}), 7),
        7,
        "bad-input",
    ),  # was queued
    "a reply": (pack(Refusal("internal", "no"), 7), 7, "bad-message"),
}


@pytest.mark.parametrize("name", CORPUS)
def test_known_bad_messages_are_refused_with_the_request_number(scripted_server: ScriptedServer, name: str) -> None:
    data, number, code = CORPUS[name]
    [(answered, refusal)] = replies_to(scripted_server, data)
    assert (answered, refusal.code) == (number, code) and refusal.message.isprintable() and len(refusal.message) < 1500


def refuse(*_: Any) -> Any:
    raise RequestError("no-such-job", "a\0b")


@pytest.mark.parametrize("answer", [lambda *_: Refusal("internal", "a\0b"), refuse], ids=["reply", "refusal"])
def test_invalid_answers_become_internal_errors(
    scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(scripted_server.server.service, "answer", answer)
    [(number, refusal)] = replies_to(scripted_server, pack(ListJobs(), 7))
    assert number == 7 and refusal.code == "internal" and "see its log" in refusal.message
    monkeypatch.undo()
    assert isinstance(scripted_server.request(ListJobs()), JobList)


def test_mutated_messages_get_one_answer_each(
    tmp_path: Path,
) -> None:
    report = fuzz_in_process(tmp_path, 9000, 7, 60)
    assert report["faults"] == []
    assert sum(report["answers"].values()) >= 8700 and report["answers"]["Refusal bad-message"] > 4500
    assert report["answers"].get("JobReply", 0) > 5, "some of them were right"


def test_mutations_cover_every_request() -> None:
    source = MessageMutations(random.Random(1))
    found = {type(unpack(source.right(kind), limits.REQUEST_BYTES)[1]).__name__ for kind in REQUESTS}
    assert found == set(REQUESTS) and len(REQUESTS) >= 13


def test_mutated_messages_over_an_encrypted_connection(
    encrypted_server: EncryptedServer,
) -> None:
    anna, mallory = encrypted_server.authorized_client("anna"), encrypted_server.authorized_client("mallory")
    connection = raw_client(encrypted_server, mallory.pair)
    source, answered, expected = MessageMutations(random.Random(3)), 0, 0
    for _ in range(20):
        for _ in range(10):
            data = source.draw()[1]
            connection.send(data)
            expected += not isinstance(decoded(data), PreviewAck)
        encrypted_server.run_for(0.01)
        while connection.poll(0):
            answered += unpack(connection.recv(), limits.REPLY_BYTES)[0] >= 0
        assert isinstance(encrypted_server.request(anna, ListJobs()), JobList)
    encrypted_server.wait_until(lambda: bool(connection.poll(0)) or answered >= expected)
    while connection.poll(50):
        answered += unpack(connection.recv(), limits.REPLY_BYTES)[0] >= 0
        encrypted_server.step()
    connection.close(0)
    assert answered >= expected


def test_client_survives_every_mutated_answer() -> None:
    report = fuzz_client(600, 5)
    assert report["connections closed by a malformed message"] > 50 and report["requests answered"] > 20
    assert report["jobs and requests stored"][0] <= JOBS_REMEMBERED and report["jobs and requests stored"][1] < 40


def test_client_memory_is_bounded_by_the_job_limit() -> None:
    fuzzed = FuzzedClient()
    try:
        for number in range(JOBS_REMEMBERED + 500):
            fuzzed.client._take_change(JobChanged(number + 1, type(JOB)(**{**JOB.__dict__, "job": f"j{number}"})))
            fuzzed.client._events.clear()
        assert len(fuzzed.client._subscription.newest) == JOBS_REMEMBERED
        assert f"j{JOBS_REMEMBERED + 499}" in fuzzed.client._subscription.newest
    finally:
        fuzzed.client.close()


@pytest.mark.parametrize(
    "data",
    [deep(1020), envelope(version=[[]] * 9), envelope(version="\0"), b""],
    ids=["deep", "version of lists", "NUL", "nothing"],
)
def test_client_rejects_a_malformed_server(data: bytes) -> None:
    fuzzed = FuzzedClient()
    try:
        fuzzed.deliver([data])
        assert fuzzed.client.state is ConnectionState.INCOMPATIBLE and fuzzed.client.reason.isprintable()
    finally:
        fuzzed.client.close()


def test_worker_port_requires_the_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded = fuzz_orders(1500, 5)["decoded"]
    assert decoded["refused"] > 500 and decoded["ProgressReport"] > 10
    secret = "5" * 64
    for kind in ([], {}, None, 5, "Explode", "\0"):
        with pytest.raises(ProtocolError, match="known are"):
            unpack_order(secret, secret.encode() + msgpack.packb([kind, {}]))
    monkeypatch.setattr(
        "dreamwright.backend.server.workers.worker_protocol.msgpack.unpackb",
        lambda *a, **k: pytest.fail("it was unpacked"),
    )
    with pytest.raises(ProtocolError, match="secret"):
        unpack_order(secret, pack_order("4" * 64, ProgressReport("j", 1, 2, 0.0, 0.0)))


def test_oversized_requests_are_refused_by_the_client(
    scripted_server: ScriptedServer,
) -> None:
    """Each field keeps its rule, all together they do not: the server would hang up without a word, again and again."""
    large = SubmitJob("t", "a", "", "m", "p", 0, {f"run.{n}": "x" * 1000 for n in range(100)})
    assert len(pack(large)) > limits.REQUEST_BYTES
    with pytest.raises(ProtocolError, match="fewer or shorter settings"):
        scripted_server.client.request(large, lambda reply: None)
    with pytest.raises(ProtocolError, match="at most 65536 are allowed"):
        check_request(large)


@pytest.mark.parametrize("encrypt", [True, False], ids=["CURVE", "NULL"])
def test_largest_request_is_accepted_and_one_byte_more_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encrypt: bool
) -> None:
    encrypted_server = EncryptedServer(tmp_path / "state", monkeypatch, encrypt=encrypt)
    try:
        client = encrypted_server.authorized_client("anna") if encrypt else encrypted_server.connect_client(None)
        encrypted_server.wait_until(lambda: client.state is ConnectionState.ONLINE)
        answers: list[Any] = []
        largest = SubmitJob("t", "a", "", "m", "p", 0, {f"{n}": "x" * 1000 for n in range(64)})
        filled = SubmitJob(
            "t",
            "a" + "b" * 900,
            "",
            "m",
            "p",
            0,
            {**largest.settings, "z": "x" * (limits.REQUEST_BYTES - len(pack(largest, 2**53)) - 909)},
        )
        assert limits.REQUEST_BYTES - 8 <= len(pack(filled, 2**53)) <= limits.REQUEST_BYTES
        client.request(filled, answers.append)
        encrypted_server.wait_until(lambda: bool(answers))
        assert isinstance(answers[0], RequestError) and answers[0].code == "bad-input"
    finally:
        encrypted_server.close()
