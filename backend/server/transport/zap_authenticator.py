# SPDX-License-Identifier: GPL-3.0-or-later
"""CURVE encryption of the server's socket, and the ZAP handler (ZeroMQ's RFC 27) that accepts or refuses keys.

The handler is a socket in the server's own loop and not pyzmq's ThreadAuthenticator: one exception in a callback ends
that thread silently and for good, and the list of users would be shared between threads. Here an error in one request
is logged and refuses one connection; a handler that ends, ends the server; and one that is not polled admits nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import zmq

from dreamwright.shared.credentials import KEY_BYTES, KeyPair, fingerprint, format_key

from ...errors import ConfigError
from .authorized_keys import AuthorizedKeys, User

log = logging.getLogger(__name__)

ENDPOINT = "inproc://zeromq.zap.01"  # fixed by RFC 27
DOMAIN = "dreamwright"  # must not be empty: libzmq then skips ZAP and admits everybody, even when told to enforce it
MIN_ZMQ = (4, 3, 3)  # older ones let a raw connection starve a CURVE server (CVE-2020-15166), or worse (CVE-2019-13132)
MAX_LOGGED = 1000  # unknown keys whose fingerprints are logged, so that a flood of keys does not fill the disk


class ZapAuthenticator:
    """Answers libzmq's authentication requests, and names the user who sent a frame.

    `admit` is asked whether a user may have one more connection; `note` takes user, fingerprint and outcome.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        authorized: AuthorizedKeys,
        admit: Callable[[str], bool] = lambda user: True,
        note: Callable[[str, str, str], None] = lambda user, mark, outcome: None,
    ) -> None:
        if not zmq.has("curve") or zmq.zmq_version_info() < MIN_ZMQ:
            raise ConfigError(
                f"ZeroMQ {zmq.zmq_version()} is installed; encryption needs {'.'.join(map(str, MIN_ZMQ))} or later "
                "with CURVE: pip install -U pyzmq"
            )
        self._authorized, self._admit, self._note = authorized, admit, note
        self._logged: set[str] = set()
        self.socket = context.socket(zmq.ROUTER)  # not REP: a request without an answer must not block the others
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ENDPOINT)  # before the server's socket: without a handler that one admits nobody

    def secure(self, socket: zmq.Socket[bytes], pair: KeyPair) -> None:
        """Make an unbound socket a CURVE server that admits only authorized keys. Raises ConfigError."""
        message = f"this ZeroMQ ({zmq.zmq_version()}) does not support the encryption settings; pip install -U pyzmq"
        try:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
            socket.setsockopt_string(zmq.ZAP_DOMAIN, DOMAIN)
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        except zmq.ZMQError as error:
            raise ConfigError(f"{message} ({error})") from error
        secured = socket.getsockopt(zmq.MECHANISM) == zmq.CURVE and socket.getsockopt(zmq.ZAP_ENFORCE_DOMAIN) == 1
        if not secured or not DOMAIN or socket.getsockopt_string(zmq.ZAP_DOMAIN) != DOMAIN:
            raise ConfigError(message)

    def answer(self, most: int = 200) -> None:
        """Answer pending authentication requests, at most `most`. Never raises for what a request contains."""
        for _ in range(most):
            try:
                parts = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                reply = self._reply(parts)
            except Exception:
                log.exception("authentication request failed; the key is refused")
                reply = _envelope(parts, b"500", b"internal error", b"")
            if reply is not None:
                self._send(reply)

    def _send(self, reply: list[bytes]) -> None:
        try:
            self.socket.send_multipart(reply, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            log.warning("connection closed before its authentication", extra={"why": str(error)})

    def _reply(self, parts: list[bytes]) -> list[bytes] | None:
        # From libzmq: route, empty, version, request, domain, address, routing id, mechanism, credentials.
        if len(parts) != 9 or parts[1] != b"" or parts[2] != b"1.0":
            log.warning("authentication request is not ZAP 1.0", extra={"parts": len(parts)})
            return _envelope(parts, b"500", b"not ZAP 1.0", b"")
        domain, mechanism, key = parts[4], parts[7], parts[8]
        if domain != DOMAIN.encode() or mechanism != b"CURVE" or len(key) != KEY_BYTES:
            return _envelope(parts, b"400", b"not CURVE", b"")
        user = self._authorized.user_of(format_key(key))
        if user is None:
            self._log_unknown(key)
            return _envelope(parts, b"400", b"unknown key", b"")
        if not self._admit(user.name):
            self._note(user.name, fingerprint(key), "too-many")
            return _envelope(parts, b"500", b"too many connections", b"")
        log.info("user connects", extra={"user": user.name})
        self._note(user.name, fingerprint(key), "ok")
        return _envelope(parts, b"200", b"OK", format_key(key).encode())

    def _log_unknown(self, key: bytes) -> None:
        mark = fingerprint(key)
        if mark not in self._logged and len(self._logged) < MAX_LOGGED:
            self._logged.add(mark)
            log.info("unknown key refused", extra={"fingerprint": mark})
            self._note("", mark, "not-admitted")

    def user_of(self, frame: zmq.Frame) -> tuple[str, User | None]:
        """(key, its user now) of a frame's sender; the key is the one that libzmq verified."""
        try:
            key = str(frame.get("User-Id"))
        except zmq.ZMQError:
            return "", None
        return key, self._authorized.user_of(key)

    def name_of(self, frame: zmq.Frame) -> str:
        """The name of a frame's sender, "" for a key that is not authorized any more."""
        user = self.user_of(frame)[1]
        return "" if user is None else user.name

    def still_allowed(self, key: str, status: str) -> bool:
        """Whether a key's user still has this status."""
        user = self._authorized.user_of(key)
        return user is not None and user.status == status


def _envelope(parts: list[bytes], status: bytes, text: bytes, user: bytes) -> list[bytes] | None:
    """A reply to a ZAP request; None for a request that does not contain what a reply needs."""
    if len(parts) < 4:
        return None
    return [parts[0], b"", b"1.0", parts[3], status, text, user, b""]
