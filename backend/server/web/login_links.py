# SPDX-License-Identifier: GPL-3.0-or-later
"""One-time links with which users sign in to the web page: a file each in `keys/web-links/` of the state folder.

A file is named by the SHA-256 of its link's secret, so that a copy of the folder signs nobody in. Using a link deletes
its file; of two requests at once only one deletes it.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dreamwright.shared.private_files import PrivateFileError, read_private, write_private

from ...errors import ConfigError
from ..transport.authorized_keys import LOCAL, User

log = logging.getLogger(__name__)

LINK_S = 600.0  # from its making to its use
MOST_LINKS = 1000  # that wait for their use
SECRET = re.compile(r"[A-Za-z0-9_-]{43}")  # 32 random bytes in base64
FORM = 1  # version of the files' format
LOCAL_USER = User(LOCAL, False, (), 0.0)  # who everybody is on a server without keys


@dataclass(frozen=True)
class Login:
    """Whom a link signs in: a name, and the user's status when the link was made."""

    name: str
    status: str


class LoginLinks:
    """The links of one state folder. `wall` and `clock` return seconds; `clock` is the same for all processes.

    A link is valid for LINK_S by both clocks: a wall clock that jumps makes links invalid and never valid again.
    """

    def __init__(
        self, state: Path, wall: Callable[[], float] = time.time, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self._wall, self._clock = state / "keys" / "web-links", wall, clock

    def create(self, user: User) -> str:
        """A new secret, 43 characters, that signs this user in once. Raises ConfigError."""
        self.remove_expired()
        secret = secrets.token_urlsafe(32)
        content = {
            "form": FORM,
            "name": user.name,
            "status": user.status,
            "made": self._wall(),
            "clock": self._clock(),
        }
        try:
            if len(list(self.folder.glob("*.json"))) >= MOST_LINKS:
                raise ConfigError(f"{MOST_LINKS} sign-in links wait for their use; wait ten minutes")
            write_private(self._path(secret), content, replace=False)
        except OSError as error:
            raise ConfigError(
                f"{self.folder} cannot be written: {error.strerror or error}; run as its owner, or choose another "
                "folder with --state"
            ) from error
        return secret

    def use(self, secret: str) -> Login | None:
        """Whom the link signs in, once; None for one that is unknown, used or expired. Never raises."""
        if not SECRET.fullmatch(secret):
            return None
        path = self._path(secret)
        login = self._read(path)
        try:
            path.unlink()
        except OSError:
            return None  # used by another request meanwhile, or it cannot be made invalid
        return login

    def remove_expired(self) -> None:
        """Delete the files of expired links."""
        for path in self.folder.glob("*.json") if self.folder.is_dir() else ():
            if self._read(path) is None:
                path.unlink(missing_ok=True)

    def _path(self, secret: str) -> Path:
        return self.folder / f"{hashlib.sha256(secret.encode()).hexdigest()}.json"

    def _read(self, path: Path) -> Login | None:
        """The login of a file that is valid now; None for any other file."""
        try:
            content = read_private(path) or {}
        except (PrivateFileError, OSError) as error:
            log.warning("sign-in link refused", extra={"why": str(error)})
            return None
        name, status, made, clock = (content.get(key) for key in ("name", "status", "made", "clock"))
        if content.get("form") != FORM or not isinstance(name, str) or not isinstance(status, str):
            return None
        for then, now in ((made, self._wall()), (clock, self._clock())):
            if not isinstance(then, (int, float)) or not 0 <= now - then <= LINK_S:
                return None
        return Login(name, status)
