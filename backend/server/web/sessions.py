# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions of users who signed in to the web page: in memory, by the monotonic clock, and never longer than their key.

A session has two secrets, and a request needs both. The cookie is hidden from scripts, but a browser also sends it to
other ports of the same host. The page's key is kept by the page's own origin, port included, so that a page of another
port or site cannot send it; it is the CSRF token of every request.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..transport.authorized_keys import User
from .login_links import Login

IDLE_S = 3600.0  # without a request
LONGEST_S = 12 * 3600.0  # from the sign-in on
PER_USER = 20  # of one user; then the one that was not used for longest ends
MOST = 2000  # of all users


@dataclass
class Session:
    """One sign-in: whose, the hash of its page's key, and its times."""

    login: Login
    key: bytes
    started: float
    used: float


@dataclass(frozen=True)
class Secrets:
    """The two secrets of a new session; only their hashes are kept."""

    cookie: str
    key: str


class Sessions:
    """All sessions. `user_named` returns a user as they are now; None for a name that may not use the server."""

    def __init__(self, user_named: Callable[[str], User | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._user_named, self._clock = user_named, clock
        self._sessions: dict[bytes, Session] = {}  # by the hash of the cookie

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, login: Login) -> Secrets | None:
        """A new session; None when the user was revoked, or has another role, since the link was made."""
        if self._current_user(login) is None:
            return None
        self._end_expired()
        own = sorted(
            (cookie for cookie, session in self._sessions.items() if session.login.name == login.name),
            key=lambda cookie: self._sessions[cookie].used,
        )
        for cookie in own[: max(0, len(own) - PER_USER + 1)]:
            del self._sessions[cookie]
        if len(self._sessions) >= MOST:
            return None
        made = Secrets(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
        now = self._clock()
        self._sessions[_hash(made.cookie)] = Session(login, _hash(made.key), now, now)
        return made

    def user_of(self, cookie: str, key: str) -> User | None:
        """The user of a request with these secrets; None unless the session is open and its key still admitted."""
        name = _hash(cookie)
        session = self._sessions.get(name)
        if session is None or not hmac.compare_digest(session.key, _hash(key)):
            return None
        user = self._current_user(session.login)
        if user is None or self._is_expired(session):
            del self._sessions[name]
            return None
        session.used = self._clock()
        return user

    def end(self, cookie: str, key: str) -> None:
        """Sign out."""
        if self.user_of(cookie, key) is not None:
            del self._sessions[_hash(cookie)]

    def _current_user(self, login: Login) -> User | None:
        user = self._user_named(login.name)
        return user if user is not None and user.status == login.status else None

    def _is_expired(self, session: Session) -> bool:
        now = self._clock()
        return now - session.used > IDLE_S or now - session.started > LONGEST_S

    def _end_expired(self) -> None:
        for cookie in [cookie for cookie, session in self._sessions.items() if self._is_expired(session)]:
            del self._sessions[cookie]


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()
