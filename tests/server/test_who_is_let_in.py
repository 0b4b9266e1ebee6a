# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is let in at the encrypted door and who is not, and what each is told."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import zmq

from dreamwright.backend.server.app import FrontDoor
from dreamwright.shared import limits
from dreamwright.shared.client import Link
from dreamwright.shared.connection_monitor import Greeting
from dreamwright.shared.credentials import fingerprint, key_text, new_pair
from dreamwright.shared.messages import JobChanged, JobList, ListJobs
from tests.testing.encrypted_server import Street, street  # noqa: F401 (street is a fixture)
from tests.testing.scripted_worker_server import asked


def test_an_unknown_key_is_refused_with_what_to_do_and_gets_in_soon_after_it_is_allowed(street: Street) -> None:
    pair = new_pair()
    client = street.comes(pair)
    street.until(lambda: client.link is Link.BARRED)
    for said in ("does not know this computer's key yet", "dreamwright keys allow NAME KEY", fingerprint(pair.public)):
        assert said in client.reason
    street.for_a_while()
    assert client.link is Link.BARRED
    street.keys.allow("anna", key_text(pair.public))
    street.for_a_while()
    assert client.link is Link.BARRED, "libzmq never tries a refused socket again"
    street.reopen_soon()
    street.until(lambda: client.link is Link.ONLINE, 2)


def test_a_client_with_the_wrong_server_key_says_so_and_tells_the_server_nothing(street: Street) -> None:
    pair = new_pair()
    street.keys.allow("anna", key_text(pair.public))
    wrong = new_pair().public
    client = street.comes(pair, wrong)
    street.until(lambda: client.link is Link.BARRED)
    assert "is not the one of the connection string" in client.reason and fingerprint(wrong) in client.reason
    street.reopen_soon()
    street.for_a_while()
    assert client.link is Link.BARRED and "is not the one" in client.reason, "the reason stays while it tries again"


def test_a_client_without_encryption_is_refused_with_what_it_lacks(street: Street) -> None:
    client = street.comes(None)
    street.until(lambda: client.link is Link.BARRED)
    assert "wants an encrypted connection" in client.reason and "connection string" in client.reason


def test_a_client_with_keys_never_talks_to_a_server_without_encryption(street: Street, tmp_path: Path) -> None:
    plain = FrontDoor("tcp://127.0.0.1:*", tmp_path / "plain", ("cpu",))
    heard: list[Any] = []
    plain._answer = lambda route, frame: heard.append(frame.bytes)
    try:
        client = street.comes(new_pair(), address=plain.address)
        for _ in range(60):
            plain.step(0.005)
            street.turn()
        assert (
            client.link is Link.BARRED and "does not encrypt, though its connection string promised it" in client.reason
        )
        assert not heard
    finally:
        plain.close()


@pytest.mark.parametrize("encrypt", [True, False], ids=["CURVE", "NULL"])
def test_which_of_two_sides_encrypts_is_told_however_often_and_whoever_hangs_up_first(
    encrypt: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    street = Street(tmp_path / "state", monkeypatch, encrypt=encrypt)
    try:
        greeting = Greeting(zmq.Context.instance(), street.door.address)
        street.until(lambda: greeting.mechanism() == ("CURVE" if encrypt else "NULL"))
        greeting.close()
        clients = [street.comes(None if encrypt else new_pair()) for _ in range(10)]
        street.until(lambda: all(client.link is Link.BARRED for client in clients))
        street.for_a_while(0.5)
        said = "wants an encrypted connection" if encrypt else "does not encrypt"
        assert [client.reason for client in clients if said not in client.reason] == []
    finally:
        street.close()


def test_a_tunnel_without_a_server_behind_it_is_a_server_that_hangs_up(street: Street) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tunnel:
        tunnel.setblocking(False)
        address = f"tcp://127.0.0.1:{tunnel.getsockname()[1]}"
        locked, plain = street.comes(new_pair(), address=address), street.comes(None, address=address)
        end = time.monotonic() + 10
        while not all(client.link is Link.BARRED for client in (locked, plain)) and time.monotonic() < end:
            street.turn()
            with contextlib.suppress(BlockingIOError):
                tunnel.accept()[0].close()
    assert "behind a tunnel, see that the server runs" in locked.reason
    assert "answers and hangs up" in plain.reason and "behind a tunnel that the server runs" in plain.reason


def test_no_answer_at_all_is_told_apart_from_every_refusal(street: Street) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = street.comes(new_pair(), address=f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        street.for_a_while()
        street.reopen_soon()
        street.until(lambda: client.link is Link.CONNECTING and "no answer" in client.reason)
    gone = street.comes(new_pair(), address="tcp://127.0.0.1:1")
    street.reopen_soon()
    street.until(lambda: gone.link is Link.CONNECTING and "is the server running" in gone.reason)


def test_a_key_that_is_revoked_in_mid_session_is_refused_at_the_next_request_and_hears_no_event_more(
    street: Street,
) -> None:
    anna = street.guest("anna")
    anna.subscribe()
    job = street.ask(anna, asked("a")).job.job
    street.until(lambda: any(isinstance(event, JobChanged) for event in street.events[anna]))
    street.keys.revoke("anna")
    street.events[anna].clear()
    street.door.service.ledger.note(job, message="a secret word")
    street.door.service._herald.tell(job)
    street.for_a_while(0.2)
    heard = [event.job.message for event in street.events[anna] if isinstance(event, JobChanged)]
    assert "a secret word" not in heard, "though its connection lives"
    answers: list[Any] = []
    anna.request(asked("b"), answers.append)
    street.until(lambda: anna.link is Link.BARRED)
    assert "does not let this key in any more" in anna.reason and not answers
    assert len(street.ledger.entries) == 1
    street.keys.allow("anna", key_text(anna.pair.public))
    street.until(lambda: anna.link is Link.ONLINE)  # the old connection serves again
    street.ahead += limits.REQUEST_TIMEOUT_S + 0.1
    street.until(lambda: bool(answers))
    assert answers[0].job.prompt == "a red mushroom", "what was asked meanwhile is carried out now"
    street.until(lambda: any(isinstance(event, JobList) for event in street.events[anna]))


def test_a_revoked_key_does_not_come_back_in(street: Street) -> None:
    anna = street.guest("anna")
    street.keys.revoke("anna")
    again = street.comes(anna.pair)
    street.until(lambda: again.link is Link.BARRED)


@pytest.mark.parametrize("damage", ["gone", "cut short", "open to all", "another's form"])
def test_a_users_file_that_cannot_be_trusted_lets_nobody_in_and_says_why(
    street: Street, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    anna = street.guest("anna")
    path = street.keys.users_path
    good = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(good[: len(good) // 2])
    elif damage == "open to all":
        path.chmod(0o644)
    else:
        path.write_bytes(good.replace(b'"form": 1', b'"form": 9'))
    answers: list[Any] = []
    with caplog.at_level(logging.ERROR):
        anna.request(ListJobs(), answers.append)
        street.until(lambda: anna.link is Link.BARRED)
    assert not answers
    assert damage == "gone" or "nobody is let in" in caplog.text
    stranger = street.comes(anna.pair)
    street.until(lambda: stranger.link is Link.BARRED)
    path.write_bytes(good)
    path.chmod(0o600)
    street.until(lambda: anna.link is Link.ONLINE)
