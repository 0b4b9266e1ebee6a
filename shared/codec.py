# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages to bytes and back: one msgpack map {"version", "id", "type", "body"} per message.

A request has an `id` chosen by the client, and its reply has the same one. Events have id 0.
"""

from __future__ import annotations

from typing import Any

import msgpack

from . import limits
from .errors import ProtocolError
from .limits import LARGEST
from .messages import MESSAGES
from .schema import from_map, short_repr, to_map


class VersionMismatchError(ProtocolError):
    """The other side speaks another version of the protocol."""

    def __init__(self, version: object, number: int) -> None:
        super().__init__(
            f"the other side speaks protocol version {short_repr(version)}, this one {limits.PROTOCOL_VERSION}; "
            "update the older of add-on and server"
        )
        self.version, self.number = version, number

    def client_message(self, address: str) -> str:
        """The message for a client's user: which side is older and needs the update."""
        older = "server" if isinstance(self.version, int) and self.version < limits.PROTOCOL_VERSION else "add-on"
        return (
            f"the server at {address} speaks version {short_repr(self.version)} of the protocol, the add-on "
            f"{limits.PROTOCOL_VERSION}; update the {older}, then connect again"
        )


def pack(message: Any, number: int = 0) -> bytes:
    """Encode a message. Raises ProtocolError when a field is invalid."""
    body = to_map(message)
    envelope = {"version": limits.PROTOCOL_VERSION, "id": number, "type": type(message).__name__, "body": body}
    return msgpack.packb(envelope, use_bin_type=True)


def check_request(message: Any) -> Any:
    """Return the request if it may be sent. Raises ProtocolError: ZeroMQ drops a connection over a larger message."""
    size = len(pack(message, LARGEST))
    if size > limits.REQUEST_BYTES:
        raise ProtocolError(
            f"{type(message).__name__} has {size} bytes; at most {limits.REQUEST_BYTES} are allowed; give fewer or "
            "shorter settings"
        )
    return message


def unpack(data: bytes, max_bytes: int) -> tuple[int, Any]:
    """Decode untrusted bytes to (id, message). Raises ProtocolError, or VersionMismatchError for another version.

    The error's `number` is the request's id where it could be read, so that the sender can be answered.
    """
    if len(data) > max_bytes:
        raise ProtocolError(f"a message of {len(data)} bytes; allowed are {max_bytes}")
    try:
        envelope = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_array_len=4096,
            max_map_len=4096,
            max_str_len=max_bytes,
            max_bin_len=max_bytes,
            max_ext_len=0,
        )
    except Exception as error:  # ValueError, UnicodeDecodeError, ExtraData, FormatError, StackError: varies by version
        raise ProtocolError(f"no msgpack message: {type(error).__name__}") from error
    if not isinstance(envelope, dict) or set(envelope) != {"version", "id", "type", "body"}:
        raise ProtocolError("a message is a map of version, id, type and body")
    number = envelope["id"]
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= LARGEST:
        raise ProtocolError(f"a message's id is a whole number from 0 to {LARGEST}")
    if envelope["version"] != limits.PROTOCOL_VERSION:
        raise VersionMismatchError(envelope["version"], number)
    try:
        kind = MESSAGES.get(envelope["type"]) if isinstance(envelope["type"], str) else None
        if kind is None:
            raise ProtocolError(f"unknown message type {short_repr(envelope['type'])}; known are {', '.join(MESSAGES)}")
        return number, from_map(kind, envelope["body"])
    except ProtocolError as error:
        error.number = number
        raise
