# SPDX-License-Identifier: GPL-3.0-or-later
"""A server announced by mDNS: what is refused, what it says, and what one forger can do to it."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import pytest

from dreamwright.backend.errors import ConfigError
from dreamwright.backend.server.transport.announcement import check_announcement, network_addresses
from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from dreamwright.shared.credentials import fingerprint
from tests.testing.announced_server import announced_server
from tests.testing.network_namespaces import CLIENT, SERVER, NetworkNamespace

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = f"tcp://{SERVER}:47630"
# Asks as Blender does and prints what every datagram says, without the add-on's reading of it.
ASK = """
import socket, sys, time, json
sys.path.insert(0, {folder!r})
from {package}.server_search import question
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind((sys.argv[1], 0))
one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[1]))
one.settimeout(0.3)
end, heard = time.monotonic() + 6, []
while time.monotonic() < end and not heard:
    one.sendto(question(), ("224.0.0.251", 5353))
    try:
        heard.append(one.recvfrom(9000)[0].hex())
    except TimeoutError:
        pass
print(json.dumps(heard))
"""
SEARCH = """
import json, sys, time
sys.path.insert(0, {folder!r})
from {package}.server_search import ServerSearch
search = ServerSearch()
search.start(seconds=float(sys.argv[1]))
while search.is_running:
    search.step()
    time.sleep(0.02)
print(json.dumps([[one.fingerprint, one.address] for one in search.found] + ([search.fault] if search.fault else [])))
"""


def output_of(script: str, installed: Path, machine: NetworkNamespace, *words: str) -> Any:
    """The JSON that a script prints on a machine."""
    text = script.format(folder=str(installed.parent), package=installed.name)
    command = machine.command(sys.executable, "-c", text, *words)
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("tcp://127.0.0.1:47630", "is this machine only; give an address of the network"),
        ("tcp://gpu-box:47630", "has the host 'gpu-box'; give --address tcp://0.0.0.0:PORT"),
        ("tcp://[fe80::1]:47630", "needs an IPv4 address to announce"),
        ("tcp://47630", "allowed is tcp://HOST:PORT"),
    ],
)
def test_an_address_that_cannot_be_announced_is_refused(address: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        check_announcement(address)


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:47630", "tcp://*:0", "tcp://[::]:47630", "tcp://10.0.0.5:47630"])
def test_an_address_of_the_network_can_be_announced(address: str) -> None:
    check_announcement(address)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package zeroconf; install it with: pip install 'dreamwright\[d"):
        check_announcement("tcp://0.0.0.0:47630")


def test_no_loopback_address_is_announced() -> None:
    assert not any(address.startswith("127.") for address in network_addresses())


def test_the_command_line_refuses_before_it_opens_anything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dreamwright.backend.cli.main", "serve", "--announce", "--state", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "--announce is for servers that other machines reach" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def announced(
    networks: tuple[NetworkNamespace, NetworkNamespace], tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], KeyFolder]]:
    with announced_server(networks[0], tmp_path / "state", ADDRESS) as server:
        yield server


@pytest.mark.slow
def test_another_machine_finds_the_server_until_it_stops(
    networks: tuple[NetworkNamespace, NetworkNamespace],
    announced: tuple[subprocess.Popen[str], KeyFolder],
    installed: Path,
) -> None:
    process, keys = announced
    named = fingerprint(keys.pair().public)
    assert output_of(SEARCH, installed, networks[1], "3") == [[named, ADDRESS]]
    (heard,) = output_of(ASK, installed, networks[1], CLIENT)
    message = dns.message.from_wire(bytes.fromhex(heard), continue_on_error=True)
    assert message.flags & dns.flags.QR
    said = " ".join(record.to_text() for part in (message.answer, message.additional) for record in part)
    # The whole answer: nothing of the machine or its users is in it.
    said = re.sub(r"\b\d+ (IN|CLASS\d+) ", "", said.lower().replace(" in ", " "))
    words = set(re.sub(rf"{named}|_dreamwright\._tcp\.local\.|dreamwright-|\.local\.", " ", said).split())
    assert {word for word in words if re.search(r"[a-z]{5}", word)} == set(), said
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert output_of(SEARCH, installed, networks[1], "1.5") == []


@pytest.mark.slow
def test_a_second_announcement_of_the_same_key_is_refused(
    networks: tuple[NetworkNamespace, NetworkNamespace],
    announced: tuple[subprocess.Popen[str], KeyFolder],
) -> None:
    """A copied state folder, or somebody with the public key alone, on another machine."""
    _, keys = announced
    forge = (
        "import sys; from dreamwright.backend.server.transport.announcement import Announcement\n"
        "Announcement(sys.argv[1], bytes.fromhex(sys.argv[2]))"
    )
    words = (f"tcp://{CLIENT}:47630", keys.pair().public.hex())
    done = subprocess.run(
        networks[1].command(sys.executable, "-c", forge, *words), capture_output=True, text=True, timeout=60
    )
    assert "another machine announces the fingerprint" in done.stderr and done.returncode != 0


@pytest.mark.slow
def test_a_machine_without_a_network_says_so(networks: tuple[NetworkNamespace, NetworkNamespace]) -> None:
    networks[1].ip("link set cable down")
    networks[1].ip("addr flush dev cable")
    make = (
        "import sys; from dreamwright.backend.server.transport.announcement import Announcement\n"
        "Announcement('tcp://0.0.0.0:47630', bytes(32))"
    )
    done = subprocess.run(networks[1].command(sys.executable, "-c", make), capture_output=True, text=True, timeout=60)
    assert "--announce finds no network on this machine" in done.stderr
