# SPDX-License-Identifier: GPL-3.0-or-later
"""The encrypted door: who is let in and who is not, what each is told, and what a listener on the wire learns."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import socket
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
import zmq

from dreamwright.backend.errors import ConfigError
from dreamwright.backend.server.doorkeeper import ENDPOINT
from dreamwright.backend.server.front_door import FrontDoor, check_address
from dreamwright.backend.server.orders import Pictured
from dreamwright.backend.server.worker import MESH_FILE
from dreamwright.shared import limits
from dreamwright.shared.client import Client, Link
from dreamwright.shared.download import Download
from dreamwright.shared.faults import Refused
from dreamwright.shared.handshake import Greeting, Lock
from dreamwright.shared.messages import Cancel, Fetch, Forget, Hello, JobChanged, JobList, ListJobs, Pause, PreviewFrame, Resume, Subscribe, pack, unpack
from dreamwright.shared.pairing import fingerprint, key_text, new_pair
from tests.doors import Street, relay_to
from tests.test_server import PuppetForeman, asked

NOBODY = "f" * 16  # a job that there is not


@pytest.fixture
def street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Street]:
    street = Street(tmp_path / "state", monkeypatch)
    yield street
    street.close()


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


# --- which doors are locked


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:47630", "tcp://*:0", "tcp://192.168.1.2:47630", "tcp://127.0.0.2:1", "tcp://[::]:1", "tcp://eth0:*", "tcp://127.0.0.1.evil.example:1"])
def test_what_is_not_surely_loopback_is_not_opened_without_keys_and_the_command_is_named(address: str, tmp_path: Path) -> None:
    assert not check_address(address)
    with pytest.raises(ConfigError, match=re.escape(f"dreamwright keys create --state {tmp_path / 'state'}")):
        FrontDoor(address, tmp_path / "state", ("cpu",))
    assert not (tmp_path / "state" / "jobs.sqlite3").exists()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:47630", "tcp://localhost:*", "tcp://[::1]:0"])
def test_loopback_needs_no_keys(address: str) -> None:
    assert check_address(address)


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:*", "tcp://127.0.0.2:*", "tcp://lo:*"])
def test_every_other_address_is_encrypted_without_being_told_to(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    street = Street(tmp_path / "state", monkeypatch, address, encrypt=False)
    try:
        port = street.door.address.rpartition(":")[2]
        reach = f"tcp://{'127.0.0.2' if '0.2' in address else '127.0.0.1'}:{port}"
        pair = new_pair()
        street.keys.allow("anna", key_text(pair.public))
        stranger, anna = street.comes(None, address=reach), street.comes(pair, address=reach)
        street.until(lambda: anna.link is Link.ONLINE and stranger.link is Link.BARRED)
    finally:
        street.close()


@pytest.mark.parametrize("trap", ["an empty domain", "a domain that is not enforced"])
def test_a_door_that_libzmq_would_open_to_all_is_not_opened(trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if trap == "an empty domain":
        monkeypatch.setattr("dreamwright.backend.server.doorkeeper.DOMAIN", "")
    else:
        asked_for = zmq.Socket.getsockopt
        monkeypatch.setattr(zmq.Socket, "getsockopt", lambda own, option: 0 if option == zmq.ZAP_ENFORCE_DOMAIN else asked_for(own, option))
    with pytest.raises(ConfigError, match="did not take the settings of an encrypted door"):
        Street(tmp_path / "state", monkeypatch)


def test_a_name_that_means_another_machine_is_not_taken_for_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a hosts file gives localhost another address."""
    monkeypatch.setattr("dreamwright.backend.server.front_door.Foreman", PuppetForeman)
    monkeypatch.setattr("dreamwright.backend.server.front_door.LOOPBACK", ("0.0.0.0",))
    with pytest.raises(ConfigError, match="which other machines may reach"):
        FrontDoor("tcp://0.0.0.0:*", tmp_path, ("cpu",))
    monkeypatch.undo()
    monkeypatch.setattr("dreamwright.backend.server.front_door.Foreman", PuppetForeman)
    FrontDoor("tcp://127.0.0.1:*", tmp_path, ("cpu",)).close()  # and it let go of the folder


# --- who is refused, and what they are told


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
        assert client.link is Link.BARRED and "does not encrypt, though its connection string promised it" in client.reason
        assert not heard
    finally:
        plain.close()


@pytest.mark.parametrize("encrypt", [True, False], ids=["CURVE", "NULL"])
def test_which_of_two_sides_encrypts_is_told_however_often_and_whoever_hangs_up_first(encrypt: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_key_that_is_revoked_in_mid_session_is_refused_at_the_next_request_and_hears_no_event_more(street: Street) -> None:
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
def test_a_users_file_that_cannot_be_trusted_lets_nobody_in_and_says_why(street: Street, damage: str, caplog: pytest.LogCaptureFixture) -> None:
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


# --- the doorkeeper cannot be killed


def test_garbage_to_the_doorkeeper_harms_nobody(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    anna = street.guest("anna")
    asking = street.door._context.socket(zmq.DEALER)
    asking.setsockopt(zmq.LINGER, 0)
    asking.connect(ENDPOINT)
    key = anna.pair.public
    good = [b"", b"1.0", b"1", b"dreamwright", b"127.0.0.1", b"", b"CURVE", key]
    rubbish: list[list[bytes]] = [[b""], [b"x"] * 3, [b"\xff"] * 40, good[:-1], good + [b""], [b"", b"9.9", *good[2:]]]
    rubbish += [[*good[:3], b"", *good[4:]], [*good[:6], b"NULL", key], [*good[:6], b"PLAIN", b"anna", b"secret"], [*good[:7], key[:31]], [*good[:7], b"\xff" * 10**6]]
    for parts in rubbish:
        asking.send_multipart(parts)
    street.for_a_while(0.2)
    while asking.poll(0):
        assert asking.recv_multipart()[3] != b"200", "nothing of it opens the door"
    asking.send_multipart(good)
    street.until(lambda: bool(asking.poll(0)))
    assert asking.recv_multipart()[3:6] == [b"200", b"OK", key_text(key).encode()]
    asking.close()
    with monkeypatch.context() as patch:
        patch.setattr(street.door.doorkeeper._guests, "user_of", lambda key: 1 / 0)
        late = street.comes(new_pair())
        street.until(lambda: late.link is Link.BARRED)
    street.guest("bert")
    assert isinstance(street.ask(anna, ListJobs()), JobList)


def test_random_and_half_greetings_on_the_wire_harm_nobody(street: Street) -> None:
    host, _, port = street.door.address.removeprefix("tcp://").rpartition(":")
    callers = []
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(15) + b"\x00" + bytes(31)
    for said in (b"", b"\x00", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 500, greeting[:11], greeting, greeting + b"\x04\xff" * 200, greeting + b"\x04\xc8\x05HELLO" + bytes(194)):
        caller = socket.create_connection((host, int(port)))
        caller.sendall(said)
        callers.append(caller)
    street.for_a_while(0.3)
    anna = street.guest("anna")
    assert isinstance(street.ask(anna, ListJobs()), JobList)
    for caller in callers:
        caller.close()


def test_without_a_doorkeeper_that_answers_nobody_is_let_in(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = new_pair()
    street.keys.allow("anna", key_text(pair.public))
    with monkeypatch.context() as patch:
        patch.setattr(street.door.doorkeeper, "answer", lambda most=200: None)
        client = street.comes(pair)
        street.for_a_while(0.5)
        assert client.link is not Link.ONLINE
    street.until(lambda: client.link is Link.ONLINE)


# --- whose is what


def test_to_everybody_else_a_job_is_as_if_there_were_none(street: Street) -> None:
    anna, bert = street.guest("anna"), street.guest("bert")
    bert.subscribe()
    job = street.ask(anna, asked("a", prompt="a red chair")).job.job
    street.until(lambda: street.foreman.given == [job])
    (street.ledger.job_folder(job) / MESH_FILE).write_bytes(b"a mesh")
    for make in (Cancel, Pause, Resume, Forget, Subscribe, lambda name: Fetch(name, "mesh", 0, 10)):
        theirs, nobodys = street.ask(bert, make(job)), street.ask(bert, make(NOBODY))
        assert isinstance(theirs, Refused) and theirs.code == nobodys.code == "no-such-job"
        assert theirs.message.replace(job, "X") == nobodys.message.replace(NOBODY, "X")
    assert not street.ask(bert, ListJobs()).jobs and len(street.ask(anna, ListJobs()).jobs) == 1
    assert street.ledger.entries[job].state.value == "running"
    assert not [event for event in street.events[bert] if isinstance(event, (JobChanged, PreviewFrame))]


def test_a_ticket_is_the_users_own_so_that_nobody_gets_anothers_job_by_it(street: Street) -> None:
    anna, bert = street.guest("anna"), street.guest("bert")
    first, second = street.ask(anna, asked("same", prompt="a red chair")), street.ask(bert, asked("same"))
    assert first.job.job != second.job.job and second.job.prompt == "a red mushroom"


def test_two_keys_of_one_name_share_their_jobs(street: Street) -> None:
    desk, couch = street.guest("anna"), street.guest("anna")
    job = street.ask(desk, asked("a")).job.job
    assert [found.job for found in street.ask(couch, ListJobs()).jobs] == [job]


def test_an_admin_sees_and_controls_every_job_until_the_role_is_taken_away(street: Street) -> None:
    anna, chief = street.guest("anna"), street.guest("chief", is_admin=True)
    chief.subscribe()
    street.for_a_while(0.1)
    job = street.ask(anna, asked("a")).job.job
    street.until(lambda: any(isinstance(event, JobChanged) and event.job.job == job for event in street.events[chief]))
    assert [found.job for found in street.ask(chief, ListJobs()).jobs] == [job]
    street.until(lambda: street.foreman.given == [job])
    chief.subscribe(job)
    street.for_a_while(0.1)
    street.foreman.told = [pictured(street, job)]
    street.until(lambda: any(isinstance(event, PreviewFrame) for event in street.events[chief]))
    assert street.ask(chief, Cancel(job)).job.state == "cancelling"
    street.keys.allow("chief", key_text(chief.pair.public), False)
    assert street.ask(chief, Cancel(job)).code == "no-such-job" and not street.ask(chief, ListJobs()).jobs
    street.for_a_while(0.2)  # what was sent before is heard
    street.events[chief].clear()
    street.foreman.told = [pictured(street, job)]
    street.door.service._herald.tell(job)
    street.for_a_while(0.2)
    assert not [event for event in street.events[chief] if isinstance(event, (JobChanged, PreviewFrame))], "nor by what it subscribed to before"
    street.keys.allow("chief", key_text(chief.pair.public), True)
    street.until(lambda: any(isinstance(event, JobList) and event.jobs for event in street.events[chief]))  # within a pulse


def test_who_was_shut_out_and_let_in_again_between_two_words_still_hears_everything(street: Street) -> None:
    anna = street.guest("anna")
    anna.subscribe()
    job = street.ask(anna, asked("a")).job.job
    street.keys.revoke("anna")
    street.door.service._herald.tell(job)  # nobody hears it, and the server forgets its subscriber
    street.keys.allow("anna", key_text(anna.pair.public))
    street.events[anna].clear()
    street.until(lambda: any(isinstance(event, JobList) for event in street.events[anna]))
    street.ledger.note(job, message="news")
    street.door.service._herald.tell(job)
    street.until(lambda: any(isinstance(event, JobChanged) and event.job.message == "news" for event in street.events[anna]))


def pictured(street: Street, job: str) -> Pictured:
    """A worker's picture; by name, for a report says also which attempt it is of."""
    fields = {"job": job, "step": 1, "width": 1, "height": 1, "data": b"x", "attempt": 1}
    return Pictured(**{name: value for name, value in fields.items() if name in Pictured.__dataclass_fields__})


# --- the wire


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
    for word in (prompt, "mushroom", "starter", "draft", job, "nobody has seen", "Submit", "anna", key_text(anna.pair.public)):
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
    assert street.door._socket.getsockopt(zmq.MAXMSGSIZE) == limits.REQUEST_BYTES
    assert street.door._socket.getsockopt(zmq.HEARTBEAT_IVL) > 0 and street.door._socket.getsockopt(zmq.HEARTBEAT_TIMEOUT) > 0


def test_a_frame_that_is_too_large_ends_that_connection_only(street: Street) -> None:
    anna, bert = street.guest("anna"), street.guest("bert")
    big = raw_guest(street, bert.pair)
    big.send(b"x" * (limits.REQUEST_BYTES + 1))
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
    assert "anna connects" in caplog.text and fingerprint(stranger_pair.public) in caplog.text
    for word in (key_text(anna.pair.public), key_text(stranger_pair.public), anna.pair.secret.hex(), "mushroom"):
        assert word not in caplog.text
    assert anna.pair.secret.hex() not in repr(Lock(street.pair.public, anna.pair))
    assert isinstance(anna, Client)
