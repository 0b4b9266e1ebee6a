# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is let in through the encrypted door: CURVE on the socket, and the other end of ZAP (ZeroMQ's RFC 27).

The handler is a socket in the server's own loop, not pyzmq's ThreadAuthenticator: one exception in a callback ends that
thread for good and in silence, and it must share the users with another thread. Here a fault of one request is logged and
refuses one stranger; a handler that would end ends the whole server, which is seen; and one that is not polled answers
nobody, so that nobody is let in.
"""

from __future__ import annotations

import logging

import zmq

from dreamwright.shared.credentials import KEY_BYTES, KeyPair, fingerprint, format_key

from ...errors import ConfigError
from .authorized_keys import AuthorizedKeys, User

log = logging.getLogger(__name__)

ENDPOINT = "inproc://zeromq.zap.01"  # fixed by RFC 27
DOMAIN = "dreamwright"  # must not be empty: libzmq then skips ZAP and lets everybody in, even when told to enforce it
OLDEST = (4, 3, 3)  # before it, a raw connection starves a CURVE server (CVE-2020-15166) and worse (CVE-2019-13132)
TOLD = 1000  # strangers whose fingerprints the log names, so that a flood of keys does not fill the disk


class ZapAuthenticator:
    """Answers libzmq's question "may this key in?", and tells whose message a frame is."""

    def __init__(self, context: zmq.Context, guests: AuthorizedKeys) -> None:
        if not zmq.has("curve") or zmq.zmq_version_info() < OLDEST:
            raise ConfigError(
                f"ZeroMQ {zmq.zmq_version()} is here; encryption needs {'.'.join(map(str, OLDEST))} or later with CURVE: pip install -U pyzmq"
            )
        self._guests = guests
        self._told: set[str] = set()
        self.socket = context.socket(zmq.ROUTER)  # not REP: a question that is not answered must not stop the others
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ENDPOINT)  # before the door: a door without it would let nobody in

    def lock(self, socket: zmq.Socket, pair: KeyPair) -> None:
        """Make an unbound socket a CURVE server that lets nobody in but by this doorkeeper."""
        fault = (
            f"this ZeroMQ ({zmq.zmq_version()}) did not take the settings of an encrypted door; pip install -U pyzmq"
        )
        try:
            self._put_on(socket, pair)
        except zmq.ZMQError as error:
            raise ConfigError(f"{fault} ({error})") from error
        locked = socket.getsockopt(zmq.MECHANISM) == zmq.CURVE and socket.getsockopt(zmq.ZAP_ENFORCE_DOMAIN) == 1
        if not locked or not DOMAIN or socket.getsockopt_string(zmq.ZAP_DOMAIN) != DOMAIN:
            raise ConfigError(fault)

    @staticmethod
    def _put_on(socket: zmq.Socket, pair: KeyPair) -> None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
        socket.setsockopt_string(zmq.ZAP_DOMAIN, DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def answer(self, most: int = 200) -> None:
        """Answer what libzmq asks, as far as it has asked. Never raises for what it was asked."""
        for _ in range(most):
            try:
                parts = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                reply = self._reply(parts)
            except Exception:
                log.exception("question about a key failed; it is not let in")
                reply = _envelope(parts, b"500", b"internal error", b"")
            if reply is not None:
                self._send(reply)

    def _send(self, reply: list[bytes]) -> None:
        try:
            self.socket.send_multipart(reply, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            log.warning("stranger left before the answer", extra={"why": str(error)})

    def _reply(self, parts: list[bytes]) -> list[bytes] | None:
        # From libzmq: route, empty, version, request, domain, address, routing id, mechanism, credentials.
        if len(parts) != 9 or parts[1] != b"" or parts[2] != b"1.0":
            log.warning("question that is none of ZAP 1.0", extra={"parts": len(parts)})
            return _envelope(parts, b"500", b"not ZAP 1.0", b"")
        domain, mechanism, key = parts[4], parts[7], parts[8]
        if domain != DOMAIN.encode() or mechanism != b"CURVE" or len(key) != KEY_BYTES:
            return _envelope(parts, b"400", b"not by CURVE", b"")
        user = self._guests.user_of(format_key(key))
        if user is None:
            self._note_stranger(key)
            return _envelope(parts, b"400", b"unknown key", b"")
        log.info("user connects", extra={"user": user.name})
        return _envelope(parts, b"200", b"OK", format_key(key).encode())

    def _note_stranger(self, key: bytes) -> None:
        mark = fingerprint(key)
        if mark not in self._told and len(self._told) < TOLD:
            self._told.add(mark)
            log.info("unknown key refused", extra={"fingerprint": mark})

    def user_of(self, frame: zmq.Frame) -> tuple[str, User | None]:
        """(key, whose it is now) of a frame's sender; the key is what libzmq checked, never what the sender says."""
        try:
            key = frame.get("User-Id")
        except zmq.ZMQError:
            return "", None
        return key, self._guests.user_of(key)

    def still(self, key: str, standing: str) -> bool:
        """Whether a key is let in now as it was then."""
        user = self._guests.user_of(key)
        return user is not None and user.standing == standing


def _envelope(parts: list[bytes], status: bytes, words: bytes, user: bytes) -> list[bytes] | None:
    """An answer to whoever asked; None where the question does not even say how to answer it."""
    if len(parts) < 4:
        return None
    return [parts[0], b"", b"1.0", parts[3], status, words, user, b""]
