# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of server addresses. Does not import bpy."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from .shared.credentials import is_connection_string
from .wording import say

DEFAULT_ADDRESS = "tcp://127.0.0.1:47630"


def _split(address: str) -> tuple[str, str, int, str]:
    """(scheme, host, port, rest) of an address; "" and 0 for missing parts. Raises ValueError when it is invalid."""
    parts = urlsplit(address.strip())
    rest = parts.path + parts.query + parts.fragment + (parts.username or "")
    return parts.scheme, (parts.hostname or "").lower(), parts.port or 0, rest


def is_local(address: str) -> bool:
    """Whether an address stays on this machine, so that Blender's offline mode does not apply."""
    try:
        scheme, host, _, _ = _split(address)
    except ValueError:
        return False
    return scheme == "ipc" or host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def address_fault(address: str) -> str:
    """Why an address cannot be used, as a sentence; "" when it can."""
    example = say("write it as {default_address}", default_address=DEFAULT_ADDRESS)
    if is_connection_string(address):
        return say("The connection string is incomplete; copy the whole line that the server prints")
    try:
        scheme, host, port, rest = _split(address)
    except ValueError:
        return say("The server address has no valid host and port; {example}", example=example)
    if scheme != "tcp":
        return say("The server address must begin with tcp://; {example}", example=example)
    if not host or not port or rest:
        return say("The server address needs a host and a port; {example}", example=example)
    return ""


def key_fault(address: str, has_key: bool) -> str:
    """Why a server must not be contacted without its key, as a sentence; "" when it may."""
    if has_key or is_local(address):
        return ""
    return say(
        "{address} is another machine and its key is unknown; paste the connection string that "
        "dreamwright serve prints there",
        address=address,
    )
