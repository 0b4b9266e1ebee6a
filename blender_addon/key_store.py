# SPDX-License-Identifier: GPL-3.0-or-later
"""This installation's key pair and the keys of known servers, in `keys/` of the user folder. Does not import bpy.

The secret key is in a file that only this user can read, since preferences and .blend files are shared between people.
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
from .wording import say

if TYPE_CHECKING:
    from .shared.connection_monitor import CurveCredentials


class KeyStoreError(ValueError):
    """Keys cannot be read, created or stored; the message says where and what to do."""


class KeyStore:
    """The keys of a session: of the server that the panel shows, and its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.server: bytes | None = None  # None: connections to this server are not encrypted
        self.own: bytes | None = None  # this installation's public key, after its first use

    def show(self, address: str) -> None:
        """Look up the key of the server at an address, for the panel."""
        try:
            self.server = server_key(self._folder, address)
        except KeyStoreError:
            self.server = None  # `credentials_for` reports the reason

    def accept(self, text: str) -> tuple[ConnectionString, bool]:
        """Store the key of a connection string; also whether another key was stored before. Raises ValueError."""
        server = parse_connection_string(text)
        return server, save_server_key(self._folder, server)

    def forget(self, address: str) -> None:
        """Delete a server's stored key. Raises KeyStoreError."""
        delete_server_key(self._folder, address)
        self.show(address)

    def use_known_key(self, address: str, announced: str) -> bool:
        """Whether a key with the announced fingerprint is known; it is then stored for this address too.

        Raises KeyStoreError where the address has another key: an announcement, which anybody can make, replaces none.
        """
        stored = server_key(self._folder, address)
        if stored is not None:
            if fingerprint(stored) == announced:
                return True
            raise KeyStoreError(
                say(
                    "The key of {address} has the fingerprint {stored}, and the server that was found says "
                    "{announced}; if it was set up anew, paste its connection string",
                    address=address,
                    stored=fingerprint(stored),
                    announced=announced,
                )
            )
        known = known_keys(self._folder).get(announced)
        if known is None:
            return False
        save_server_key(self._folder, ConnectionString(address, known))
        return True

    def own_key_text(self) -> str:
        """This installation's public key as text, created at its first use. Raises KeyStoreError, ImportError."""
        self.own = own_key_pair(self._folder).public
        return format_key(self.own)

    def credentials_for(self, address: str) -> CurveCredentials | None:
        """Credentials for a connection; None for one without encryption. Raises KeyStoreError, ImportError."""
        self.server = server_key(self._folder, address)
        if self.server is None:
            return None
        from .shared.connection_monitor import CurveCredentials  # loads zmq

        pair = own_key_pair(self._folder)
        self.own = pair.public
        return CurveCredentials(self.server, pair)

    @property
    def server_fingerprint(self) -> str:
        """Fingerprint of the server's key; "" when it has none."""
        return fingerprint(self.server) if self.server else ""

    @property
    def own_fingerprint(self) -> str:
        """Fingerprint of this installation's key; "" before its first use."""
        return fingerprint(self.own) if self.own else ""


def own_key_pair(folder: Path) -> KeyPair:
    """This installation's key pair, created at its first use. Raises KeyStoreError, ImportError when zmq is missing."""
    path = folder / "keys" / "own.json"
    try:
        return load_or_create_key_pair(path)
    except PrivateFileError as error:
        raise KeyStoreError(say("This computer's key cannot be used: {error}", error=error)) from error
    except ValueError as error:
        raise KeyStoreError(
            say(
                "This computer's key in {path} is damaged ({error}); delete that file to create a new "
                "key, and have it authorized again",
                path=path,
                error=error,
            )
        ) from error
    except RuntimeError as error:
        raise KeyStoreError(str(error)) from error
    except OSError as error:
        raise KeyStoreError(
            say(
                "This computer's key cannot be stored in {folder}: {error}; make that folder writable",
                folder=path.parent,
                error=error.strerror or error,
            )
        ) from error


def server_key(folder: Path, address: str) -> bytes | None:
    """The stored public key of the server at `address`; None when there is none.

    Raises KeyStoreError for unreadable keys: a connection must not fall back to no encryption.
    """
    known = _read_servers(folder).get(address)
    try:
        return None if known is None else parse_key(known)
    except ValueError as error:
        raise KeyStoreError(
            say("The key of {address} is damaged; paste its connection string again", address=address)
        ) from error


def save_server_key(folder: Path, server: ConnectionString) -> bool:
    """Store a server's key; whether another one was stored for its address. Raises KeyStoreError."""
    servers = _read_servers(folder)
    before, now = servers.get(server.address), format_key(server.server)
    _write_servers(folder, {**servers, server.address: now})
    return before not in (None, now)


def delete_server_key(folder: Path, address: str) -> None:
    """Delete a server's stored key. Raises KeyStoreError."""
    _write_servers(folder, {known: key for known, key in _read_servers(folder).items() if known != address})


def known_servers(folder: Path) -> list[str]:
    """Addresses of servers with stored keys; [] when they cannot be read."""
    try:
        return list(_read_servers(folder))
    except KeyStoreError:
        return []


def known_keys(folder: Path) -> dict[str, bytes]:
    """The stored keys of servers by their fingerprints; {} when they cannot be read, without those that are damaged."""
    try:
        stored = _read_servers(folder).values()
    except KeyStoreError:
        return {}
    keys = []
    for text in stored:
        try:
            keys.append(parse_key(text))
        except ValueError:
            continue  # `server_key` says so when it is used
    return {fingerprint(key): key for key in keys}


def known_fingerprints(folder: Path) -> frozenset[str]:
    """Fingerprints of the servers whose keys are stored."""
    return frozenset(known_keys(folder))


def _read_servers(folder: Path) -> dict[str, str]:
    path = folder / "keys" / "servers.json"
    try:
        content = read_private(path) or {}
    except (PrivateFileError, OSError) as error:
        raise KeyStoreError(say("The keys of servers cannot be read: {error}", error=error)) from error
    return {address: key for address, key in content.items() if isinstance(key, str)}


def _write_servers(folder: Path, servers: dict[str, str]) -> None:
    path = folder / "keys" / "servers.json"
    try:
        write_private(path, dict(servers))
    except OSError as error:
        raise KeyStoreError(
            say(
                "The server's key cannot be stored in {folder}: {error}; make the folder writable",
                folder=path.parent,
                error=error.strerror or error,
            )
        ) from error
