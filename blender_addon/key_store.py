# SPDX-License-Identifier: GPL-3.0-or-later
"""This Blender's own key pair and the keys of the servers it knows, in `keys/` of the user folder. Knows nothing of bpy.

The secret lies there in a file that only this user may read: Blender's preferences and .blend files are handed around.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .shared.credentials import (
    ConnectionString,
    KeyPair,
    fingerprint,
    format_key,
    load_or_create_key_pair,
    parse_connection_string,
    parse_key,
)
from .shared.private_files import PrivateFileError, read_private, write_private

if TYPE_CHECKING:
    from .shared.connection_monitor import CurveCredentials


class KeyringError(ValueError):
    """Keys that cannot be read, made or kept; says where and what to do."""


class Keyring:
    """What a session knows of keys: those of the server that is shown, and its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.server: bytes | None = None  # None: that server is talked to without encryption
        self.own: bytes | None = None  # this installation's public key, once it was needed

    def show(self, address: str) -> None:
        """Look up the server at an address, to draw it."""
        try:
            self.server = server_key(self._folder, address)
        except KeyringError:
            self.server = None  # `lock_for` says why

    def accept(self, text: str) -> tuple[ConnectionString, bool]:
        """Take a connection string: from now on its address is that server or nobody; whether it was another one before.

        Raises ValueError.
        """
        invited = parse_connection_string(text)
        return invited, remember_server(self._folder, invited)

    def forget(self, address: str) -> None:
        """Know a server's key no longer. Raises KeyringError."""
        forget_server(self._folder, address)
        self.show(address)

    def own_text(self) -> str:
        """This installation's public key for who runs a server, made at the first need. Raises KeyringError, ImportError."""
        self.own = own_pair(self._folder).public
        return format_key(self.own)

    def lock_for(self, address: str) -> CurveCredentials | None:
        """What a connection to an address is encrypted with; None where it is not. Raises KeyringError, ImportError."""
        self.server = server_key(self._folder, address)
        if self.server is None:
            return None
        from .shared.connection_monitor import CurveCredentials  # which loads zmq

        pair = own_pair(self._folder)
        self.own = pair.public
        return CurveCredentials(self.server, pair)

    @property
    def server_mark(self) -> str:
        """The fingerprint of the server's key; "" when it has none."""
        return fingerprint(self.server) if self.server else ""

    @property
    def own_mark(self) -> str:
        """The fingerprint of this installation's key; "" before it was needed."""
        return fingerprint(self.own) if self.own else ""


def own_pair(folder: Path) -> KeyPair:
    """The key pair of this installation, made at its first need. Raises KeyringError, ImportError where zmq is missing."""
    path = folder / "keys" / "own.json"
    try:
        return load_or_create_key_pair(path)
    except PrivateFileError as error:
        raise KeyringError(f"This computer's key cannot be used: {error}") from error
    except ValueError as error:
        raise KeyringError(
            f"This computer's key in {path} is damaged ({error}); delete that file to get a new key, and have it allowed again"
        ) from error
    except RuntimeError as error:
        raise KeyringError(str(error)) from error
    except OSError as error:
        raise KeyringError(
            f"This computer's key cannot be kept in {path.parent}: {error.strerror or error}; make the folder writable"
        ) from error


def server_key(folder: Path, address: str) -> bytes | None:
    """The public key that the server at `address` must have; None for a server that is known to have none.

    Raises KeyringError: not to know is no reason to talk in the open.
    """
    known = _servers(folder).get(address)
    try:
        return None if known is None else parse_key(known)
    except ValueError as error:
        raise KeyringError(f"The key of {address} is damaged; paste its connection string again") from error


def remember_server(folder: Path, invited: ConnectionString) -> bool:
    """Keep a server's key; whether another one was known for its address. Raises KeyringError."""
    servers = _servers(folder)
    before, fresh = servers.get(invited.address), format_key(invited.server)
    _write_servers(folder, {**servers, invited.address: fresh})
    return before not in (None, fresh)


def forget_server(folder: Path, address: str) -> None:
    """Know no key of a server any more. Raises KeyringError."""
    _write_servers(folder, {known: key for known, key in _servers(folder).items() if known != address})


def known_servers(folder: Path) -> list[str]:
    """Addresses whose keys are known; [] when that cannot be read."""
    try:
        return list(_servers(folder))
    except KeyringError:
        return []


def _servers(folder: Path) -> dict[str, str]:
    path = folder / "keys" / "servers.json"
    try:
        content = read_private(path) or {}
    except (PrivateFileError, OSError) as error:
        raise KeyringError(f"The keys of servers cannot be read: {error}") from error
    return {address: key for address, key in content.items() if isinstance(key, str)}


def _write_servers(folder: Path, servers: dict[str, str]) -> None:
    path = folder / "keys" / "servers.json"
    try:
        write_private(path, dict(servers))
    except OSError as error:
        raise KeyringError(
            f"The server's key cannot be kept in {path.parent}: {error.strerror or error}; make the folder writable"
        ) from error
