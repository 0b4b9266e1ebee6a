# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a connection is, looked up at every request and every event: by its CURVE key, never by its routing id.

Anybody may choose a routing id. Without encryption, on a loopback address, everybody is the user LOCAL.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Container, Sized
from dataclasses import dataclass
from typing import Protocol

import zmq

from dreamwright.shared.credentials import fingerprint, parse_key
from dreamwright.shared.errors import RequestError

from .authorized_keys import LOCAL
from .zap_authenticator import ZapAuthenticator

NOT_ADMITTED = "this server does not accept your key any more; ask its administrator to allow it again"


@functools.lru_cache(maxsize=4096)
def _fingerprint(key: str) -> str:
    return fingerprint(parse_key(key))


@dataclass(frozen=True)
class Identity:
    """The user behind a request; `key` and `status` are "" on a server without keys."""

    user: str
    is_admin: bool
    key: str = ""
    status: str = ""

    @property
    def fingerprint(self) -> str:
        """Of the key; "" on a server without keys."""
        return _fingerprint(self.key) if self.key else ""

    def epoch_suffix(self) -> str:
        """Changes with the user's permissions, so that clients subscribe anew; "" on a server without keys."""
        return f"-{hashlib.sha256(self.status.encode()).hexdigest()[:8]}" if self.key else ""


class Subscribed(Sized, Container[bytes], Protocol):
    """The connections that events are sent to."""


class AccessControl:
    """`authenticator` None: a server without keys."""

    def __init__(self, authenticator: ZapAuthenticator | None) -> None:
        self._authenticator = authenticator
        self._subscribers: dict[bytes, Identity] = {}  # by routing id, as they were when they subscribed

    def identify(self, route: bytes, frame: zmq.Frame) -> Identity:
        """The user who sent a frame. Raises RequestError for a key that is not authorized (any more)."""
        if self._authenticator is None:
            return Identity(LOCAL, False)
        key, user = self._authenticator.user_of(frame)
        if user is None:
            self._subscribers.pop(route, None)
            raise RequestError("not-admitted", NOT_ADMITTED)
        if len(route) != 5 or route[0] != 0:
            # Whoever takes over a disconnected client's routing id would receive that client's events. Routing ids
            # made by libzmq begin with a zero byte and cannot be predicted.
            raise RequestError("bad-message", "let ZeroMQ choose the routing id of this connection")
        return Identity(user.name, user.is_admin, key, user.status)

    def remember_subscriber(self, route: bytes, identity: Identity, subscribed: Subscribed) -> None:
        """Allow events to a connection as long as its user's status does not change.

        `subscribed`: the connections that the publisher still sends to; others are forgotten.
        """
        if self._authenticator is None:
            return
        if len(self._subscribers) > 64 + 2 * len(subscribed):
            self._subscribers = {known: who for known, who in self._subscribers.items() if known in subscribed}
        self._subscribers[route] = identity

    def may_receive(self, route: bytes) -> bool:
        """Whether events may be sent to a connection now."""
        if self._authenticator is None:
            return True
        identity = self._subscribers.get(route)
        if identity is not None and self._authenticator.still_allowed(identity.key, identity.status):
            return True
        self._subscribers.pop(route, None)
        return False
