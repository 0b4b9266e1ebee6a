# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, fingerprints and connection strings, by which servers and clients identify each other.

A key is 32 bytes of CurveZMQ (RFC 26). Its text form is one word without characters special to a shell, with three
bytes of SHA-256 as a checksum at its end. Only `KeyPair.secret` is secret.
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
VERSION = 1  # of the connection string's format
_CHECK_BYTES = 3  # 35 bytes are 56 characters of base32 exactly


def format_key(key: bytes) -> str:
    """Text form of a public key. Raises ValueError unless it has 32 bytes."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    return PREFIX + base64.b32encode(key + hashlib.sha256(key).digest()[:_CHECK_BYTES]).decode().lower()


def parse_key(text: str) -> bytes:
    """Parse the text form of a key; spaces and line breaks are ignored. Raises ValueError."""
    word = "".join(text.split()).lower()
    try:
        if not word.startswith(PREFIX):
            raise ValueError("no prefix")
        data = base64.b32decode(word.removeprefix(PREFIX).upper())
    except (ValueError, binascii.Error) as error:
        raise ValueError(f"{_shown(word)} is not a key; a key starts with {PREFIX} and has 62 characters") from error
    key, check = data[:KEY_BYTES], data[KEY_BYTES:]
    if len(key) != KEY_BYTES or hashlib.sha256(key).digest()[:_CHECK_BYTES] != check:
        raise ValueError(f"{_shown(word)} is a key with a wrong checksum; copy it again, whole")
    return key


def fingerprint(key: bytes) -> str:
    """80 bits of SHA-256 of a public key, for people to compare, for example by telephone."""
    word = base64.b32encode(hashlib.sha256(b"dreamwright fingerprint" + key).digest()[:10]).decode().lower()
    return "-".join(word[start : start + 4] for start in range(0, 16, 4))


def is_fingerprint(text: str) -> bool:
    """Whether a text has the form of a fingerprint: four groups of four letters and digits of base32."""
    return re.fullmatch(r"[a-z2-7]{4}(-[a-z2-7]{4}){3}", text) is not None


def _shown(word: str) -> str:
    return repr(word if len(word) <= 70 else word[:69] + "…")


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair; repr() omits the secret."""

    public: bytes
    secret: bytes = field(repr=False)


def generate_key_pair() -> KeyPair:
    """A new random key pair. Raises RuntimeError when ZeroMQ was built without CURVE."""
    import zmq
    from zmq.utils import z85

    if not zmq.has("curve"):
        raise RuntimeError("this ZeroMQ was built without CURVE; install pyzmq from its wheel: pip install pyzmq")
    public, secret = zmq.curve_keypair()
    return KeyPair(z85.decode(public), z85.decode(secret))


def public_key_of(secret: bytes) -> bytes:
    """The public key that belongs to a secret key."""
    import zmq
    from zmq.utils import z85

    return z85.decode(zmq.curve_public(z85.encode(secret)))


def key_pair_to_map(pair: KeyPair) -> dict[str, str]:
    """A key pair as text, the secret included, for a private file."""
    return {"public": format_key(pair.public), "secret": pair.secret.hex()}


def key_pair_from_map(content: dict[str, object]) -> KeyPair:
    """The inverse of `key_pair_to_map`. Raises ValueError when the keys are invalid or do not belong together."""
    public, secret = content.get("public"), content.get("secret")
    if not isinstance(public, str) or not isinstance(secret, str) or not re.fullmatch(r"[0-9a-f]{64}", secret):
        raise ValueError("not a key pair: `public` and `secret` must be keys")
    pair = KeyPair(parse_key(public), bytes.fromhex(secret))
    if public_key_of(pair.secret) != pair.public:
        raise ValueError("the public key does not belong to the secret one")
    return pair


def load_or_create_key_pair(path: Path) -> KeyPair:
    """Read the key pair of a private file, which is created when missing.

    Raises PrivateFileError, ValueError for a damaged file, RuntimeError and ImportError as `generate_key_pair` does,
    OSError.
    """
    content = read_private(path)
    if content is None:
        pair = generate_key_pair()
        if write_private(path, dict(key_pair_to_map(pair)), replace=False):
            return pair
        content = read_private(path)  # another process created it first
    return key_pair_from_map(content or {})


@dataclass(frozen=True)
class ConnectionString:
    """A server's address and public key, as in the text that `dreamwright serve` prints."""

    address: str  # tcp://HOST:PORT
    server: bytes  # its public key

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the server's key."""
        return fingerprint(self.server)

    def __str__(self) -> str:
        return f"{SCHEME}://{self.address.removeprefix('tcp://')}/v{VERSION}/{format_key(self.server)}"


def is_connection_string(text: str) -> bool:
    """Whether a text looks like a connection string, valid or not."""
    return text.strip().lower().startswith(f"{SCHEME}:")


def parse_connection_string(text: str) -> ConnectionString:
    """Parse a pasted connection string; spaces and line breaks are ignored. Raises ValueError."""
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
        raise ValueError(f"This is not a connection string; {what}: {SCHEME}://HOST:PORT/v{VERSION}/{PREFIX}…")
    if int(found[1]) != VERSION:
        raise ValueError(
            f"The connection string has version {int(found[1])}, this Dreamwright reads version {VERSION}; update the "
            "older of server and add-on"
        )
    try:
        key = parse_key(found[2])
    except ValueError as error:
        raise ValueError(f"The connection string is damaged: {error}") from error
    return ConnectionString(f"tcp://{f'[{host}]' if ':' in host else host}:{port}", key)
