# SPDX-License-Identifier: GPL-3.0-or-later
"""The socket pair between the server and its web process: length-prefixed msgpack maps, every field checked.

The web process names no user. It passes on the two secrets that a browser sent, and the server decides whose they are:
a fault in the web process can use the sessions that pass through it, and nothing else.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import msgpack

from dreamwright.shared import limits
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.messages import MESSAGES, JobList
from dreamwright.shared.schema import boolean, from_map, record, short_repr, text, to_map

SECRET_CHARACTERS = 64  # of a link, a cookie or a page's key
WATCH_CHARACTERS = 40
CALL_BYTES = limits.REQUEST_BYTES  # of a message from the web process
ANSWER_BYTES = limits.REPLY_BYTES + 64 * 1024  # of a message from the server
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True)
class SignIn:
    """Use a one-time link. Answered by `SignedIn`."""

    link: str = text(SECRET_CHARACTERS)


@dataclass(frozen=True)
class SignedIn:
    """The secrets of a new session: for the browser's cookie, and for the page."""

    cookie: str = text(SECRET_CHARACTERS)
    key: str = text(SECRET_CHARACTERS)


@dataclass(frozen=True)
class SignOut:
    """End the session. Answered by `Done`."""


@dataclass(frozen=True)
class WhoAmI:
    """Ask whose the session is, which also keeps it and its watch alive. Answered by `Account`."""


@dataclass(frozen=True)
class Account:
    """The user of a session. `is_open`: a server without keys, where everybody is the same user."""

    user: str = text(limits.OWNER_CHARACTERS)
    is_admin: bool = boolean()
    is_open: bool = boolean()


@dataclass(frozen=True)
class Watch:
    """Receive every change of the jobs that the session's user may see. Answered by `Watching`."""


@dataclass(frozen=True)
class Watching:
    """The id that the changes carry, the same for all sessions of a user, and the jobs now."""

    watch: str = text(WATCH_CHARACTERS)
    jobs: JobList = record(JobList)


@dataclass(frozen=True)
class WatchEnded:
    """Nothing more is sent to a watch: the user was revoked, or has another role."""


WEB_MESSAGES: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (SignIn, SignedIn, SignOut, WhoAmI, Account, Watch, Watching, WatchEnded)
}


@dataclass(frozen=True)
class Call:
    """A request of a browser: a number for the answer, the session's two secrets ("" without one), and the message."""

    number: int
    cookie: str
    key: str
    message: Any


@dataclass(frozen=True)
class Answer:
    """The answer to call `number`; or, with number 0, an event of a watch."""

    number: int
    watch: str
    message: Any


def pack_call(call: Call) -> bytes:
    """A frame. Raises ProtocolError when a field is invalid."""
    return _pack({"id": call.number, "cookie": call.cookie, "key": call.key, **_body(call.message)}, CALL_BYTES)


def unpack_call(data: bytes) -> Call:
    """A call of the web process. Raises ProtocolError; its `number` is the call's, where it could be read."""
    found = _unpack(data, {"id", "cookie", "key", "type", "body"})
    for name in ("cookie", "key"):
        if not isinstance(found[name], str) or len(found[name]) > SECRET_CHARACTERS:
            raise ProtocolError(f"{name} is not text of at most {SECRET_CHARACTERS} characters")
    return Call(found["id"], found["cookie"], found["key"], found["message"])


def pack_answer(answer: Answer) -> bytes:
    """A frame. Raises ProtocolError when a field is invalid."""
    return _pack({"id": answer.number, "watch": answer.watch, **_body(answer.message)}, ANSWER_BYTES)


def unpack_answer(data: bytes) -> Answer:
    """An answer or event of the server. Raises ProtocolError."""
    found = _unpack(data, {"id", "watch", "type", "body"})
    if not isinstance(found["watch"], str):
        raise ProtocolError("watch is not text")
    return Answer(found["id"], found["watch"], found["message"])


class FrameReader:
    """Cuts a stream of bytes into frames of at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most, self._buffer = most, bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that these bytes complete. Raises ProtocolError for a frame that is too long."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > self._most:
                raise ProtocolError(f"a frame of {length} bytes; allowed are {self._most}")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            frames.append(bytes(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
        return frames


def _body(message: Any) -> dict[str, Any]:
    return {"type": type(message).__name__, "body": to_map(message)}


def _pack(envelope: dict[str, Any], most: int) -> bytes:
    data: bytes = msgpack.packb(envelope, use_bin_type=True)
    if len(data) > most:
        raise ProtocolError(f"{envelope['type']} has {len(data)} bytes; allowed are {most}")
    return _LENGTH.pack(len(data)) + data


def _unpack(data: bytes, fields: set[str]) -> dict[str, Any]:
    try:
        envelope = msgpack.unpackb(
            data, raw=False, strict_map_key=True, max_array_len=4096, max_map_len=4096, max_ext_len=0
        )
    except Exception as error:  # varies by version
        raise ProtocolError(f"no msgpack message: {type(error).__name__}") from error
    if not isinstance(envelope, dict) or set(envelope) != fields:
        raise ProtocolError(f"a message is a map of {', '.join(sorted(fields))}")
    number = envelope["id"]
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= limits.LARGEST:
        raise ProtocolError(f"a message's id is a whole number from 0 to {limits.LARGEST}")
    try:
        name = envelope["type"]
        kind = {**MESSAGES, **WEB_MESSAGES}.get(name) if isinstance(name, str) else None
        if kind is None:
            raise ProtocolError(f"unknown message type {short_repr(name)}")
        return {**envelope, "message": from_map(kind, envelope["body"])}
    except ProtocolError as error:
        error.number = number
        raise
