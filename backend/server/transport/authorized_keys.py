# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's key pair and the users' public keys, in `keys/` of the state folder.

Files are private (mode 0600 in a folder of mode 0700) and replaced atomically, so that `dreamwright keys` can change
them while a server reads them.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from dreamwright.shared.credentials import (
    KeyPair,
    fingerprint,
    format_key,
    generate_key_pair,
    key_pair_from_map,
    key_pair_to_map,
    parse_key,
)
from dreamwright.shared.private_files import PrivateFileError, read_private, write_private

from ...errors import ConfigError

log = logging.getLogger(__name__)

LOCAL = "local"  # the owner of all jobs on a server without keys, where everybody is the same user
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
FORM = 1  # version of the files' format
MAX_KEYS = 10_000  # of all users together


def state_folder() -> Path:
    """The default of --state: the folder of jobs and keys."""
    import platformdirs

    return Path(platformdirs.user_data_dir("dreamwright", False)) / "server"


@dataclass(frozen=True)
class User:
    """A person who may use the server, with any of their keys."""

    name: str
    is_admin: bool
    keys: tuple[str, ...]  # public keys, as `format_key` writes them
    since: float  # Unix time of the permission, or of the role

    @property
    def status(self) -> str:
        """Text that changes with the user's role, and when a revoked user is allowed again."""
        return f"{self.name}/{'admin' if self.is_admin else 'user'}/{self.since!r}"


class KeyFolder:
    """The keys of one state folder. All methods raise ConfigError with the command that helps."""

    def __init__(self, state: Path) -> None:
        self.state, self.folder = state, state / "keys"
        self._pair, self.users_path, self._served, self._web = (
            self.folder / f"{name}.json" for name in ("server", "users", "served", "web")
        )

    # --- the server's key pair

    def create(self, replacing: bool = False) -> KeyPair:
        """Make the server's key pair."""
        try:
            pair = generate_key_pair()
        except RuntimeError as error:
            raise ConfigError(str(error)) from error
        if not self._write(self._pair, {"form": FORM, **key_pair_to_map(pair)}, replacing):
            raise ConfigError(
                f"{self.folder} holds a key pair already; see it with: {self.command('show')}; a new one disconnects "
                f"every Blender until it gets the new connection string: {self.command('create --replace')}"
            )
        return pair

    def pair(self) -> KeyPair:
        """The server's key pair."""
        content = self._read(self._pair)
        if content is None:
            raise ConfigError(f"the server has no keys in {self.folder} yet; make them with: {self.command('create')}")
        try:
            return key_pair_from_map(content)
        except ValueError as error:
            raise ConfigError(
                f"{self._pair} is damaged ({error}); restore it from a copy, or type: "
                f"{self.command('create --replace')}"
            ) from error

    def remember_served(self, address: str) -> None:
        """Save the address of the connection string, for `dreamwright keys show`."""
        self._write(self._served, {"form": FORM, "address": address})

    def served(self) -> str:
        """The address in the last connection string; "" if there was none."""
        address = (self._read(self._served) or {}).get("address")
        return address if isinstance(address, str) else ""

    # --- the users

    def users(self) -> dict[str, User]:
        """All users, by name."""
        content = self._read(self.users_path)
        try:
            return {} if content is None else _read_users(content)
        except ValueError as error:
            raise ConfigError(
                f"{self.users_path} is damaged ({error}); restore a copy, or delete it and allow the users again"
            ) from error

    def allow(self, name: str, key: str, is_admin: bool | None = None) -> User:
        """Allow a key under a name, which may have several. `is_admin` None keeps the user's role."""
        if not NAME.fullmatch(name) or name == LOCAL:
            raise ConfigError(
                f"the user's name is {name!r}; allowed are 1 to 40 letters, digits, dots, hyphens and underscores, "
                f"beginning with a letter or a digit, and not {LOCAL!r}, which owns the jobs of a server without keys"
            )
        try:
            word = format_key(parse_key(key))
        except ValueError as error:
            raise ConfigError(f"{error}; the user copies it with Copy My Key in Blender's tab Dreamwright") from error
        with self._locked():
            users = self.users()
            if word == format_key(self.pair().public):
                raise ConfigError(
                    "this is the server's own key; allow the one that the user copies with Copy My Key "
                    "in Blender's tab Dreamwright"
                )
            for other in users.values():
                if word in other.keys and other.name != name:
                    raise ConfigError(
                        f"this key belongs to {other.name} already; to give it away, first type: "
                        f"{self.command(f'revoke {other.name}')}"
                    )
            user = users.get(name) or User(name, False, (), time.time())
            role = user.is_admin if is_admin is None else is_admin
            since = user.since if role == user.is_admin else time.time()
            users[name] = replace(user, is_admin=role, keys=tuple(dict.fromkeys((*user.keys, word))), since=since)
            self._write_users(users)
        return users[name]

    def revoke(self, name: str) -> User:
        """Revoke all keys of a name at once; the user's jobs remain."""
        with self._locked():
            users = self.users()
            if name not in users:
                raise ConfigError(
                    f"nobody named {name!r} may use this server; allowed are "
                    f"{', '.join(sorted(users)) or 'no users yet'}"
                )
            user = users.pop(name)
            self._write_users(users)
        return user

    def remember_web(self, url: str) -> None:
        """Save the address of the web page, for `dreamwright keys web`."""
        self._write(self._web, {"form": FORM, "url": url})

    def web_url(self) -> str:
        """The address where the web page was served last; "" if it never was."""
        url = (self._read(self._web) or {}).get("url")
        return url if isinstance(url, str) else ""

    def _write_users(self, users: Mapping[str, User]) -> None:
        if sum(len(user.keys) for user in users.values()) > MAX_KEYS:
            raise ConfigError(f"there would be more than {MAX_KEYS} keys; revoke some first")
        entry = {
            user.name: {"admin": user.is_admin, "keys": list(user.keys), "since": user.since} for user in users.values()
        }
        self._write(self.users_path, {"form": FORM, "users": entry})

    # --- the disk

    def command(self, rest: str) -> str:
        """A `dreamwright keys` command for this folder."""
        return f"dreamwright keys {rest}" + ("" if self.state == state_folder() else f" --state {self.state}")

    def _locked(self) -> FileLock:
        """A lock with which concurrent commands do not lose each other's changes."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{self.folder} cannot be made: {error.strerror or error}; choose another folder with --state"
            ) from error
        return FileLock(self.folder / "lock", timeout=10)

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            content = read_private(path)
        except PrivateFileError as error:
            raise ConfigError(str(error)) from error
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be read: {error.strerror or error}; run as its owner, or choose another folder "
                "with --state"
            ) from error
        if content is not None and content.get("form") != FORM:
            raise ConfigError(
                f"{path} has form {content.get('form')!r}, this Dreamwright knows {FORM}; update the older one"
            )
        return content

    def _write(self, path: Path, content: dict[str, Any], replacing: bool = True) -> bool:
        try:
            return write_private(path, content, replacing)
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be written: {error.strerror or error}; make room, or choose another folder with --state"
            ) from error


def _read_users(content: Mapping[str, Any]) -> dict[str, User]:
    """Users by name. Raises ValueError for anything that `_write_users` would not have written."""
    found: dict[str, User] = {}
    seen: set[str] = set()
    users = content.get("users")
    if not isinstance(users, dict):
        raise ValueError("no users")
    for name, entry in users.items():
        if (
            not NAME.fullmatch(name)
            or name == LOCAL
            or not isinstance(entry, dict)
            or not isinstance(entry.get("admin"), bool)
        ):
            raise ValueError(f"user {name!r}")
        keys, since = entry.get("keys"), entry.get("since")
        if not isinstance(keys, list) or not all(
            isinstance(key, str) and format_key(parse_key(key)) == key for key in keys
        ):
            raise ValueError(f"keys of {name!r}")
        if seen & set(keys):
            raise ValueError(f"a key of {name!r} also belongs to another user")
        seen |= set(keys)
        found[name] = User(name, entry["admin"], tuple(keys), float(since) if isinstance(since, (int, float)) else 0.0)
    return found


class AuthorizedKeys:
    """The users of a running server: looked up at every request, and read again when the file has changed.

    Never raises. With a file that is missing, damaged or readable by others nobody is allowed; the log says so once.
    """

    def __init__(self, folder: KeyFolder) -> None:
        self._folder = folder
        self._stamp: tuple[int, ...] | None = ()
        self._by_key: dict[str, User] = {}
        self._by_name: Mapping[str, User] = {}

    def user_of(self, key: str) -> User | None:
        """The user of a key; None for an unknown one."""
        self._refresh()
        return self._by_key.get(key)

    def is_admin(self, name: str) -> bool:
        """Whether a name has the admin role now."""
        self._refresh()
        return name in self._by_name and self._by_name[name].is_admin

    def user_named(self, name: str) -> User | None:
        """The user of a name; None for one who is not allowed (any more)."""
        self._refresh()
        return self._by_name.get(name)

    def __len__(self) -> int:
        self._refresh()
        return len(self._by_key)

    def _refresh(self) -> None:
        try:
            now = os.stat(self._folder.users_path)
            stamp = (now.st_ino, now.st_mtime_ns, now.st_ctime_ns, now.st_size)  # the mode's change moves ctime
        except OSError:
            stamp = None
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            users = self._folder.users()
        except ConfigError as error:
            log.error("users cannot be read; nobody is allowed", extra={"why": str(error)})
            users = {}
        self._by_key = {key: user for user in users.values() for key in user.keys}
        self._by_name = users
        log.info("users read", extra={"users": len(users)})


def shown_users(users: Mapping[str, User]) -> list[str]:
    """One line for each key, for a terminal."""
    lines = []
    for user in sorted(users.values(), key=lambda user: user.name):
        role = "admin" if user.is_admin else "user"
        since = time.strftime("%Y-%m-%d", time.localtime(user.since))
        lines += [f"{user.name:<20} {role:<6} {fingerprint(parse_key(key))}  since {since}" for key in user.keys]
    return lines
