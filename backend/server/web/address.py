# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the web page is served, by which names browsers reach it, and when that is refused."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError

EXAMPLE = "127.0.0.1:47631"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")  # of a browser on this machine, or behind an SSH tunnel to it


@dataclass(frozen=True)
class WebAddress:
    """A checked address. `names`: the hosts that a browser may give; certificate and key are None without TLS."""

    host: str
    port: int
    names: tuple[str, ...]
    certificate: Path | None = None
    key: Path | None = None

    @property
    def scheme(self) -> str:
        """https with a certificate."""
        return "http" if self.certificate is None else "https"

    def url(self, port: int) -> str:
        """The page's address, for a user; `port` is the one that was bound."""
        return f"{self.scheme}://{self.names[0]}:{port}"


def check_web_address(
    address: str, certificate: Path | None, key: Path | None, has_keys: bool, reached_as: tuple[str, ...] = ()
) -> WebAddress:
    """The address of `--web`. `has_keys`: the server asks for keys. `reached_as`: names of this machine, best first.

    Other machines may only reach the page over TLS, on a server whose users have keys. Raises ConfigError.
    """
    host, _, port = address.rpartition(":")
    bare = host.strip("[]")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ConfigError(f"the address of --web is {address!r}; allowed is HOST:PORT, for example {EXAMPLE}")
    if (certificate is None) != (key is None):
        raise ConfigError("TLS needs a certificate and its key; give both --web-cert and --web-key, or neither")
    if certificate is not None and key is not None:
        load_certificate(certificate, key)
    if is_loopback_host(bare):
        return WebAddress(bare, int(port), tuple(dict.fromkeys((_in_url(bare), *LOOPBACK_NAMES))), certificate, key)
    if certificate is None:
        raise ConfigError(
            f"--web {address} can be reached from other machines and would send everything unencrypted; give "
            f"--web-cert and --web-key, or use --web {EXAMPLE} and an SSH tunnel"
        )
    if not has_keys:
        raise ConfigError(
            f"--web {address} can be reached from other machines, and this server has no users; give --encrypt and "
            f"allow them with dreamwright keys, or use --web {EXAMPLE}"
        )
    own = () if bare in ("0.0.0.0", "::", "*") else (bare,)
    names = tuple(dict.fromkeys(_in_url(name) for name in (*reached_as, *own) if name))
    return WebAddress(bare, int(port), (*names, *LOOPBACK_NAMES), certificate, key)


def is_loopback_host(host: str) -> bool:
    """Whether other machines cannot reach a host's address; a name other than localhost counts as reachable."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load_certificate(certificate: Path, key: Path) -> ssl.SSLContext:
    """A TLS context of these files, TLS 1.2 or later. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # never asks the terminal
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(
            f"the certificate {str(certificate)!r} with the key {str(key)!r} cannot be used: "
            f"{getattr(error, 'strerror', None) or error}; give PEM files that belong together, the key without a "
            "password"
        ) from error
    return context


def open_listener(address: WebAddress) -> socket.socket:
    """A listening socket. Raises ConfigError for an address that is in use or not of this machine."""
    host = "0.0.0.0" if address.host == "*" else address.host
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, address.port), family=family, backlog=128)
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that no resolver takes
        raise ConfigError(
            f"cannot serve the web page on {address.host}:{address.port}: {getattr(error, 'strerror', None) or error}; "
            "stop what uses it, or choose another with --web"
        ) from error
    if address.certificate is None and not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        listener.close()  # the hosts file gives localhost another address
        raise ConfigError(f"--web {address.host} is not this machine's loopback address; use --web {EXAMPLE}")
    return listener


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host.lower()
