# SPDX-License-Identifier: GPL-3.0-or-later
"""What people hand each other so that a server and a Blender know one another: keys, fingerprints, connection strings.

A key is 32 bytes of CurveZMQ (RFC 26). Its text is one word that a double click selects and a shell leaves alone, with
three bytes of SHA-256 at its end, so that a slip of the hand is noticed. Nothing here is secret but `KeyPair.secret`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from .private_files import read_private, write_private

KEY_BYTES = 32
PREFIX = "dwkey_"
SCHEME = "dreamwright"
VERSION = 1  # of the connection string's form
_CHECK_BYTES = 3  # 35 bytes are 56 characters of base32 exactly


def format_key(key: bytes) -> str:
    """The one spelling of a public key. Raises ValueError for what is not 32 bytes."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    return PREFIX + base64.b32encode(key + hashlib.sha256(key).digest()[:_CHECK_BYTES]).decode().lower()


def parse_key(text: str) -> bytes:
    """The key of a text that a person may have pasted with spaces and line breaks. Raises ValueError."""
    word = "".join(text.split()).lower()
    try:
        if not word.startswith(PREFIX):
            raise ValueError("no prefix")
        data = base64.b32decode(word.removeprefix(PREFIX).upper())
    except (ValueError, binascii.Error) as error:
        raise ValueError(f"{_shown(word)} is no key; one begins with {PREFIX} and has 62 characters") from error
    key, check = data[:KEY_BYTES], data[KEY_BYTES:]
    if len(key) != KEY_BYTES or hashlib.sha256(key).digest()[:_CHECK_BYTES] != check:
        raise ValueError(f"{_shown(word)} is a key with a mistake in it; copy it again, whole")
    return key


def fingerprint(key: bytes) -> str:
    """80 bits of SHA-256 of a public key, for two people to compare by eye or on the telephone."""
    word = base64.b32encode(hashlib.sha256(b"dreamwright fingerprint" + key).digest()[:10]).decode().lower()
    return "-".join(word[start : start + 4] for start in range(0, 16, 4))


def _shown(word: str) -> str:
    return repr(word if len(word) <= 70 else word[:69] + "…")


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair; the secret is never shown."""

    public: bytes
    secret: bytes = field(repr=False)


def generate_key_pair() -> KeyPair:
    """A fresh key pair, from libsodium's or the system's randomness. Raises RuntimeError where ZeroMQ has no CURVE."""
    import zmq
    from zmq.utils import z85

    if not zmq.has("curve"):
        raise RuntimeError("ZeroMQ is built without CURVE here; install pyzmq from its wheel: pip install pyzmq")
    public, secret = zmq.curve_keypair()
    return KeyPair(z85.decode(public), z85.decode(secret))


def public_key_of(secret: bytes) -> bytes:
    """The public key of a secret one."""
    import zmq
    from zmq.utils import z85

    return z85.decode(zmq.curve_public(z85.encode(secret)))


def key_pair_to_map(pair: KeyPair) -> dict[str, str]:
    """A pair as plain text, for a private file only."""
    return {"public": format_key(pair.public), "secret": pair.secret.hex()}


def key_pair_from_map(content: dict[str, object]) -> KeyPair:
    """The pair that `pair_text` wrote. Raises ValueError when the two do not belong together."""
    public, secret = content.get("public"), content.get("secret")
    if not isinstance(public, str) or not isinstance(secret, str) or not re.fullmatch(r"[0-9a-f]{64}", secret):
        raise ValueError("no key pair")
    pair = KeyPair(parse_key(public), bytes.fromhex(secret))
    if public_key_of(pair.secret) != pair.public:
        raise ValueError("the public key does not belong to the secret one")
    return pair


def load_or_create_key_pair(path: Path) -> KeyPair:
    """The key pair in a file that nobody else may read, made at its first need.

    Raises PrivateFileError, ValueError for a damaged one, RuntimeError and ImportError as `new_pair` does, OSError.
    """
    content = read_private(path)
    if content is None:
        pair = generate_key_pair()
        if write_private(path, dict(key_pair_to_map(pair)), replace=False):
            return pair
        content = read_private(path)  # another process was faster
    return key_pair_from_map(content or {})


@dataclass(frozen=True)
class ConnectionString:
    """Where a server is and how to know it again: the connection string that it prints."""

    address: str  # tcp://HOST:PORT
    server: bytes  # its public key

    @property
    def fingerprint(self) -> str:
        """Of the server's key."""
        return fingerprint(self.server)

    def __str__(self) -> str:
        return f"{SCHEME}://{self.address.removeprefix('tcp://')}/v{VERSION}/{format_key(self.server)}"


def is_connection_string(text: str) -> bool:
    """Whether a text means to be a connection string."""
    return text.strip().lower().startswith(f"{SCHEME}:")


def parse_connection_string(text: str) -> ConnectionString:
    """A pasted connection string; a terminal may have broken it into lines. Raises ValueError saying what is wrong."""
    word = "".join(text.split())
    what = "copy the whole line that the server prints"
    try:
        parts = urlsplit(word)
        host, port = parts.hostname or "", parts.port or 0
    except ValueError as error:
        raise ValueError(f"The connection string has no valid host and port; {what}") from error
    found = re.fullmatch(r"/v(\d{1,4})/([^/]*)", parts.path)
    if (
        parts.scheme.lower() != SCHEME
        or not host
        or not port
        or parts.username
        or parts.query
        or parts.fragment
        or found is None
    ):
        raise ValueError(f"This is no connection string; {what}: {SCHEME}://HOST:PORT/v{VERSION}/{PREFIX}…")
    if int(found[1]) != VERSION:
        raise ValueError(
            f"The connection string is of version {int(found[1])}, this Dreamwright knows {VERSION}; update the older of server and add-on"
        )
    try:
        key = parse_key(found[2])
    except ValueError as error:
        raise ValueError(f"The connection string is damaged: {error}") from error
    return ConnectionString(f"tcp://{f'[{host}]' if ':' in host else host}:{port}", key)
