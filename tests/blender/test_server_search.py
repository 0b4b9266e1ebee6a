# SPDX-License-Identifier: GPL-3.0-or-later
"""The search for servers: what is read from anybody's datagrams, and from the button to a chosen server in Blender."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rrset
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dreamwright.shared.credentials import ConnectionString, fingerprint, generate_key_pair, is_fingerprint
from dreamwright.shared.discovery import SERVICE_TYPE
from tests.testing.addon_session import addon_module
from tests.testing.announced_server import announced_server
from tests.testing.blender_reports import report_of
from tests.testing.blenders import Blender, blenders, run_script
from tests.testing.built_addon import Built
from tests.testing.network_namespaces import SERVER, NetworkNamespace

INSIDE = Path(__file__).parent / "scripts"
NAME, OTHER = "k3fd-7x2m-aaaa-bbbb", "cccc-dddd-2222-7777"


def answer(
    name: str = NAME,
    ips: tuple[str, ...] = ("10.0.0.5",),
    port: int = 47630,
    host: str = "box.local.",
    flags: int = 0x8400,
) -> bytes:
    """An answer as a responder sends it: PTR, SRV and A records."""
    message = dns.message.Message(id=0)
    message.flags = dns.flags.Flag(flags)
    instance = f"{name}.{SERVICE_TYPE}"
    message.answer.append(dns.rrset.from_text(SERVICE_TYPE, 4500, "IN", "PTR", instance))
    message.additional.append(dns.rrset.from_text(instance, 120, "IN", "SRV", f"0 0 {port} {host}"))
    if ips:
        message.additional.append(dns.rrset.from_text("box.local.", 120, "IN", "A", *ips))
    return message.to_wire()


@pytest.fixture
def search(installed: Path) -> Any:
    return addon_module("server_search")


def test_the_question_is_a_one_shot_query(search: Any) -> None:
    """RFC 6762, 5.1 and 18.1: identifier 0, no flags, one question for PTR records of class IN."""
    message = dns.message.from_wire(search.question())
    assert message.id == 0 and message.flags == 0
    assert [one.to_text() for one in message.question] == ["_dreamwright._tcp.local. IN PTR"]


def test_an_answer_names_a_server(search: Any) -> None:
    assert search.servers_in(answer(), "10.0.0.5") == [search.FoundServer(NAME, "tcp://10.0.0.5:47630")]


def test_of_several_addresses_the_one_that_answered_is_taken(search: Any) -> None:
    several = answer(ips=("192.168.7.2", "10.0.0.5"))
    assert search.servers_in(several, "10.0.0.5")[0].address == "tcp://10.0.0.5:47630"
    assert search.servers_in(several, "10.9.9.9")[0].address in ("tcp://192.168.7.2:47630", "tcp://10.0.0.5:47630")


@pytest.mark.parametrize(
    "datagram",
    [
        answer(name="click-here"),  # no fingerprint: no text of a stranger is shown
        answer(name=NAME + "x"),
        answer(ips=("127.0.0.1",)),  # this machine's own server needs no key
        answer(ips=("127.8.8.8", "0.0.0.0", "224.0.0.251", "255.255.255.255")),
        answer(ips=()),
        answer(port=0),
        answer(host="elsewhere.local."),
        answer(flags=0),  # a question
        b"",
        b"\x00" * 12,
        b"\xff" * 9000,
        b"\x00\x00\x84\x00\x00\x00\x00\x01\x00\x00\x00\x00\xc0\x0c" + b"\x00" * 10,  # a name that points to itself
    ],
    ids=[
        "a text as the name",
        "a longer name",
        "a loopback address",
        "no address of a network",
        "no address",
        "port 0",
        "another host's address",
        "a question",
        "nothing",
        "an empty header",
        "ones",
        "a name that points to itself",
    ],
)
def test_nothing_is_read_from_other_datagrams(search: Any, datagram: bytes) -> None:
    assert search.servers_in(datagram, "10.0.0.5") == []


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=8)))
@example([(5, 255), (7, 255)])
def test_any_datagram_gives_valid_servers_or_none(installed: Path, mutations: Any) -> None:
    search = addon_module("server_search")
    datagram = bytearray(answer())
    if isinstance(mutations, bytes):
        datagram = bytearray(mutations)
    else:
        for place, value in mutations:
            datagram[place % len(datagram)] = value
    for server in search.servers_in(bytes(datagram), "10.0.0.5"):
        assert is_fingerprint(server.fingerprint)
        found = re.fullmatch(r"tcp://(\d+)\.\d+\.\d+\.\d+:(\d+)", server.address)
        assert found and found[1] not in ("0", "127") and 0 < int(found[2]) < 65536


def test_a_flood_leaves_a_bounded_list_with_the_known_servers_first(search: Any) -> None:
    one = search.ServerSearch()
    one.known = frozenset([OTHER])
    one._add([search.FoundServer(NAME, f"tcp://10.0.{n // 200}.{n % 200 + 1}:47630") for n in range(1000)])
    one._add([search.FoundServer(OTHER, "tcp://10.9.9.9:47630")])
    assert len(one.found) == search.MAX_SERVERS and one.found[0].fingerprint == OTHER


def test_a_search_asks_again_and_ends(search: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three questions in three seconds, then no socket is open; a network that takes none is the search's fault."""
    now, sent = [0.0], []

    class Line:
        closed = False

        def sendto(self, data: bytes, _to: Any) -> None:
            sent.append(now[0])
            if len(sent) > 3:
                raise OSError(101, "Network is unreachable")

        def recvfrom(self, _size: int) -> Any:
            if now[0] == 1.5:
                return answer(), ("10.0.0.5", 5353)  # again and again: a flood
            raise BlockingIOError

        def close(self) -> None:
            self.closed = True

    line = Line()
    monkeypatch.setattr(search, "_open_sockets", lambda: [line])
    one = search.ServerSearch(lambda: now[0])
    one.start()
    for step in range(1, 31):
        assert one.is_running and not line.closed
        now[0] = step / 10
        one.step()
    assert sent == [0.0, 1.0, 2.0, 3.0][: len(sent)] and not one.is_running and line.closed
    assert [server.fingerprint for server in one.found] == [NAME]
    one.start()
    now[0] = 10.0
    one.step()
    assert one.fault == "Network is unreachable" and one.found == ()


def test_the_key_of_a_server_that_moved_is_used_at_its_new_address(installed: Path, tmp_path: Path) -> None:
    keys, key = addon_module("key_store").KeyStore(tmp_path), generate_key_pair().public
    keys.accept(str(ConnectionString("tcp://10.0.0.5:47630", key)))
    assert keys.use_known_key("tcp://10.0.0.6:47630", fingerprint(key))
    assert addon_module("key_store").server_key(tmp_path, "tcp://10.0.0.6:47630") == key
    assert not keys.use_known_key("tcp://10.0.0.7:47630", OTHER), "an unknown fingerprint needs the connection string"
    assert addon_module("key_store").server_key(tmp_path, "tcp://10.0.0.7:47630") is None


def test_an_announcement_never_replaces_a_key(installed: Path, tmp_path: Path) -> None:
    keys, key = addon_module("key_store").KeyStore(tmp_path), generate_key_pair().public
    other = generate_key_pair().public
    keys.accept(str(ConnectionString("tcp://10.0.0.5:47630", key)))
    keys.accept(str(ConnectionString("tcp://10.0.0.6:47630", other)))
    with pytest.raises(ValueError, match=f"fingerprint {fingerprint(key)}, and the server that was found says "):
        keys.use_known_key("tcp://10.0.0.5:47630", fingerprint(other))
    assert addon_module("key_store").server_key(tmp_path, "tcp://10.0.0.5:47630") == key


@pytest.mark.slow
def test_search_in_blender_on_another_machine(
    networks: tuple[NetworkNamespace, NetworkNamespace], built: Built, tmp_path: Path
) -> None:
    """From *Find Servers* over the pasted string to a connection that the server refuses only for want of a key."""
    blender: Blender = next(one for one in blenders() if one.name == "bpy-4.5.15")
    if blender.missing:
        pytest.skip(blender.missing)
    here, there = networks
    address = f"tcp://{SERVER}:47630"
    with announced_server(here, tmp_path / "state", address) as (_, keys):
        key = keys.pair().public
        far = replace(blender, command=tuple(there.command(*blender.command)))
        environment = {"STRING": str(ConnectionString(address, key)), "SERVER": "tcp://127.0.0.1:9"}
        done = run_script(far, INSIDE / "search.py", built.universal, environment)
    report = report_of(done)
    assert "Traceback" not in done.stdout + done.stderr
    named = fingerprint(key)
    assert "online access" in report["offline"].lower() or "offline" in report["offline"].lower(), report["offline"]
    assert report["found"] == [[named, address]]
    assert report["address"] == address and "its key is unknown" in report["before the string"]
    assert report["after the string"] == "" and report["known"] == [named]
    assert "does not know this computer's key yet" in report["reason"]
    assert "Disconnect first" in report["while connected"]
    assert "No server answered on the local network" in report["alone"]
