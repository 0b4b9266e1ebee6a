# SPDX-License-Identifier: GPL-3.0-or-later
"""A search for announced servers on the local network: one-shot mDNS questions (RFC 6762, 5.1). Does not import bpy.

Answers come from anybody on the network and are believed in nothing: a server found is only used with its key.
"""

from __future__ import annotations

import functools
import importlib.util
import ipaddress
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from .shared.credentials import is_fingerprint
from .shared.discovery import MULTICAST_ADDRESS, MULTICAST_PORT, SERVICE_TYPE
from .wording import say

SEARCH_S = 3.0  # an answer to a question for a shared record comes within 120 ms (RFC 6762, 6)
ASK_EVERY_S = 1.0  # datagrams get lost
MAX_SERVERS = 32  # in the list; more are somebody's mischief
ANSWERS_A_STEP = 3  # of each network: a flood is read slowly, and the panel is not held up
MAX_DATAGRAM = 512  # bytes: an answer has about 200, and the time to read one grows with its length
PACKAGES = {"dns": "dnspython", "ifaddr": "ifaddr"}  # by module; the zip has both for Blender 4.2 and later


@dataclass(frozen=True, order=True)
class FoundServer:
    """A server that announces itself."""

    fingerprint: str  # of its key, as it says
    address: str  # tcp://HOST:PORT


def package_fault() -> str:
    """Why this Blender cannot search, as a sentence; "" when it can."""
    missing = _missing_packages()
    if not missing:
        return ""
    return say(
        "The search needs the Python package {package}, which this Blender does not have; on Debian install it with: "
        "apt install python3-{package}",
        package=missing[0],
    )


@functools.cache  # a panel asks at each drawing
def _missing_packages() -> list[str]:
    return [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]


def question() -> bytes:
    """The datagram that asks for all instances of the service."""
    import dns.flags
    import dns.message

    message = dns.message.make_query(SERVICE_TYPE, "PTR")
    message.id, message.flags = 0, dns.flags.Flag(0)
    return message.to_wire()


def servers_in(datagram: bytes, sender: str) -> list[FoundServer]:
    """The servers that an answer names; [] for anything else.

    Of a server's addresses the one that it answered from is taken, which this machine reaches, else the first.
    """
    import dns.exception
    import dns.flags
    import dns.message
    import dns.rdatatype

    try:
        # A record that cannot be read is left out: mDNS compresses names in NSEC records (RFC 6762, 18.14).
        message = dns.message.from_wire(datagram, ignore_trailing=True, continue_on_error=True)
    except (dns.exception.DNSException, ValueError):
        return []
    if not message.flags & dns.flags.QR:
        return []
    hosts: dict[str, list[str]] = {}
    places: dict[str, tuple[str, int]] = {}  # by instance: name of the host, and port
    for records in (*message.answer, *message.additional):
        owner = str(records.name).lower()
        for record in records:
            if record.rdtype == dns.rdatatype.A and hasattr(record, "address"):
                hosts.setdefault(owner, []).append(str(record.address))
            elif record.rdtype == dns.rdatatype.SRV and hasattr(record, "target"):
                places[owner] = str(record.target).lower(), int(record.port)
    found = []
    for instance, (host, port) in places.items():
        name, _, kind = instance.partition(".")
        usable = [ip for ip in hosts.get(host, ()) if _is_of_a_network(ip)]
        if kind == SERVICE_TYPE and is_fingerprint(name) and port and usable:
            found.append(FoundServer(name, f"tcp://{sender if sender in usable else usable[0]}:{port}"))
    return found


def _is_of_a_network(ip: str) -> bool:
    """Whether an address may be another machine's: this machine's own needs no key, so nobody may name it."""
    address = ipaddress.IPv4Address(ip)
    return not (address.is_loopback or address.is_unspecified or address.is_multicast or address.is_reserved)


def _open_sockets() -> list[socket.socket]:
    """A socket on each of this machine's networks. Raises OSError where there is none."""
    import ifaddr

    opened = []
    for ip in {ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if isinstance(ip.ip, str)}:
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            one.bind((ip, 0))  # any port but 5353: answers then come to this socket alone (RFC 6762, 6.7)
            one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(ip))
            one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
            one.setblocking(False)
        except OSError:  # a network that has just gone, or takes no multicast
            one.close()
            continue
        opened.append(one)
    if not opened:
        raise OSError("this machine is in no network")
    return opened


class ServerSearch:
    """One search at a time. Call `step` often while `is_running`: nothing here waits, and Blender takes no threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.found: tuple[FoundServer, ...] = ()  # those with known keys first
        self.known: frozenset[str] = frozenset()  # fingerprints of servers whose keys are stored, at the start
        self.fault = ""  # why the last search failed
        self._clock = clock
        self._sockets: list[socket.socket] = []
        self._faults: dict[socket.socket, str] = {}  # of networks that took no question
        self._end = self._next_question = 0.0

    @property
    def is_running(self) -> bool:
        """Whether answers are still waited for."""
        return bool(self._sockets)

    def start(self, known: frozenset[str] = frozenset(), seconds: float = SEARCH_S) -> None:
        """Search anew; servers with `known` fingerprints come first in the list."""
        self.stop()
        self.known, self._next_question = known, self._clock()
        self._end = self._next_question + seconds
        try:
            self._sockets = _open_sockets()
        except OSError as error:
            self.fault = str(error.strerror or error)
            return
        self.step()

    def step(self) -> None:
        """Ask again where it is time, read what has arrived, and end the search at its end."""
        now = self._clock()
        if self._sockets and now >= self._next_question:
            self._next_question = now + ASK_EVERY_S
            self._ask()
        for one in self._sockets:
            for _ in range(ANSWERS_A_STEP):
                try:
                    datagram, (sender, _) = one.recvfrom(MAX_DATAGRAM + 1)
                except OSError:  # nothing more is there, or, on Windows, a question was refused
                    break
                if len(datagram) <= MAX_DATAGRAM:
                    self._add(servers_in(datagram, sender))
        if self._sockets and now >= self._end:
            if len(self._faults) == len(self._sockets):
                self.fault = next(iter(self._faults.values()))
            self._close()

    def stop(self) -> None:
        """End the search and forget what was found."""
        self._close()
        self.found, self.fault = (), ""

    def _close(self) -> None:
        for one in self._sockets:
            one.close()
        self._sockets, self._faults = [], {}

    def _ask(self) -> None:
        for one in self._sockets:
            try:
                one.sendto(question(), (MULTICAST_ADDRESS, MULTICAST_PORT))
                self._faults.pop(one, None)
            except OSError as error:  # this network takes no multicast now
                self._faults[one] = str(error.strerror or error)

    def _add(self, servers: list[FoundServer]) -> None:
        every = sorted({*self.found, *servers}, key=lambda one: (one.fingerprint not in self.known, one))
        self.found = tuple(every[:MAX_SERVERS])
