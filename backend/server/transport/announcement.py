# SPDX-License-Identifier: GPL-3.0-or-later
"""A server announced on the local network by mDNS: its addresses and its key's fingerprint (`shared.discovery`)."""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import socket
from typing import TYPE_CHECKING

from dreamwright.shared.credentials import fingerprint
from dreamwright.shared.discovery import SERVICE_TYPE, instance_name

from ...errors import ConfigError
from .router_socket import is_loopback_address

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, Zeroconf

log = logging.getLogger(__name__)
ANY_HOST = ("0.0.0.0", "*", "[::]")


def check_announcement(address: str) -> None:
    """Raise ConfigError where a server at this address cannot be announced: before anything is opened."""
    if is_loopback_address(address):
        raise ConfigError(
            f"--announce is for servers that other machines reach, and {address} is this machine only; give an address "
            "of the network, for example --address tcp://0.0.0.0:47630, or leave --announce out"
        )
    _bound_host(address)
    if importlib.util.find_spec("zeroconf") is None:
        raise ConfigError(
            "--announce needs the package zeroconf; install it with: pip install 'dreamwright[discovery]'"
        )


def _bound_host(address: str) -> str:
    """The IPv4 address that the server is bound to; "" for all. Raises ConfigError for any other host."""
    host = address.removeprefix("tcp://").rpartition(":")[0]
    if host in ANY_HOST:
        return ""
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError as error:
        raise ConfigError(
            f"--announce needs an IPv4 address to announce, and {address} has the host {host!r}; give --address "
            "tcp://0.0.0.0:PORT for all networks of this machine, or the IPv4 address of one"
        ) from error


def network_addresses() -> list[str]:
    """This machine's IPv4 addresses that others may reach, those given by a DHCP server included."""
    import ifaddr

    found = (ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if isinstance(ip.ip, str))
    return [ip for ip in dict.fromkeys(found) if not ipaddress.IPv4Address(ip).is_loopback]


class Announcement:
    """Announces a server until it is closed; answers questions on UDP port 5353 in a thread of its own.

    Raises ConfigError where that port or the network cannot be used, and where another machine announces this
    fingerprint already.
    """

    def __init__(self, address: str, server_key: bytes) -> None:
        """`address`: tcp://HOST:PORT that the server is bound to, with its real port."""
        from zeroconf import IPVersion, NonUniqueNameException, Zeroconf

        host, self.fingerprint = _bound_host(address), fingerprint(server_key)
        self.addresses = [host] if host else network_addresses()
        if not self.addresses:
            raise ConfigError("--announce finds no network on this machine; connect it to one, or leave --announce out")
        try:
            self._zeroconf: Zeroconf = Zeroconf(interfaces=self.addresses, ip_version=IPVersion.V4Only)
        except OSError as error:
            raise ConfigError(
                f"the server cannot be announced: UDP port 5353 of {', '.join(self.addresses)} cannot be used "
                f"({error.strerror or error}); stop the program that holds it alone, or leave --announce out"
            ) from error
        try:
            self._zeroconf.register_service(self._service(int(address.rpartition(":")[2])))
        except NonUniqueNameException as error:
            self._zeroconf.close()
            raise ConfigError(
                f"another machine announces the fingerprint {self.fingerprint} already: a copy of this server's keys, "
                "or somebody who pretends to be it; find it, or leave --announce out"
            ) from error
        log.info("announced on the local network", extra={"addresses": ", ".join(self.addresses)})

    def _service(self, port: int) -> ServiceInfo:
        from zeroconf import ServiceInfo

        return ServiceInfo(
            SERVICE_TYPE,
            instance_name(self.fingerprint),
            port=port,
            # A name of its own instead of the machine's, which tells more than an address.
            server=f"dreamwright-{self.fingerprint}.local.",
            addresses=[socket.inet_aton(ip) for ip in self.addresses],
        )

    def close(self) -> None:
        """Tell the network that the service has ended."""
        self._zeroconf.close()
