# SPDX-License-Identifier: GPL-3.0-or-later
"""State of a client's connection, and the reason: a code for programs and a sentence for people."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ConnectionState(str, Enum):
    """The state of the connection."""

    CLOSED = "closed"
    CONNECTING = "connecting"
    ONLINE = "online"
    LOST = "lost"  # was online; the client reconnects by itself
    UNAUTHORIZED = "unauthorized"  # the keys of the two sides do not match; retried every few seconds
    INCOMPATIBLE = "incompatible"  # another protocol version, or no Dreamwright server; not retried


class ConnectionReason(str, Enum):
    """Why the connection has its state. Callers branch on this code, never on the text beside it."""

    NONE = ""  # closed by this side
    CONNECTING = "connecting"  # no answer yet, and the first time-out has not passed
    CONNECTED = "connected"
    NO_ANSWER = "no-answer"  # nothing was received for longer than the time-out
    SERVER_SHUTDOWN = "server-shutdown"  # the server announced its end
    UNKNOWN_CLIENT_KEY = "unknown-client-key"  # the server does not know this client's key
    KEY_REVOKED = "key-revoked"  # the server knew this client's key, and no longer accepts it
    NOT_ADMITTED = "not-admitted"  # the server knows this client's key, and has too many connections
    WRONG_SERVER_KEY = "wrong-server-key"  # the server has another key than the one expected
    ENCRYPTION_REQUIRED = "encryption-required"  # the server encrypts, and this client has no credentials
    SERVER_NOT_ENCRYPTED = "server-not-encrypted"  # this client has credentials, and the server does not encrypt
    CLOSED_BY_PEER = "closed-by-peer"  # something accepts connections and closes them without a ZeroMQ handshake
    VERSION_MISMATCH = "version-mismatch"  # the server speaks another protocol version
    NOT_DREAMWRIGHT = "not-dreamwright"  # the server's messages are not of this protocol


@dataclass(frozen=True)
class ConnectionChanged:
    """The connection changed: its new state, the code of the reason, and the reason as a sentence."""

    state: ConnectionState
    code: ConnectionReason
    reason: str
