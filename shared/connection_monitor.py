# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a socket was let in, and if not, why: ZeroMQ tells it to the socket's monitor only, and never to the socket."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from enum import Enum

import zmq

from .credentials import KeyPair, fingerprint


class Verdict(str, Enum):
    """How the newest handshake ended."""

    LET_IN = "let in"
    UNKNOWN_KEY = "unknown key"  # the server is the right one and does not know this client's key
    WRONG_SERVER = "wrong server key"  # it hung up in mid-handshake, as it does when it cannot read what was sent to it
    NO_ENCRYPTION = "no encryption"  # one side encrypts and the other does not
    HUNG_UP = "hung up"  # of a connection without encryption: something listens there and does not speak


@dataclass(frozen=True)
class Lock:
    """What a client needs for an encrypted door: the server's public key and its own pair."""

    server: bytes
    own: KeyPair

    def put_on(self, socket: zmq.Socket) -> None:
        """Make an unconnected socket a CURVE client that talks to this server only."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.own.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.own.secret)


_EVENTS = {
    zmq.EVENT_HANDSHAKE_SUCCEEDED: Verdict.LET_IN,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: Verdict.UNKNOWN_KEY,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: Verdict.WRONG_SERVER,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: Verdict.NO_ENCRYPTION,
}


HANG_UPS = 4  # in a row, after which a server that says nothing of itself is taken for what it seems
_numbers = itertools.count()


class Greeting:
    """The mechanism that a server greets everybody with, in clear (ZMTP 3, ZeroMQ's RFC 23: bytes 12 to 31).

    Two sides of which one encrypts hang up on each other, and the one that is hung up on is often not told why.
    """

    def __init__(self, context: zmq.Context, address: str) -> None:
        self._socket = context.socket(zmq.STREAM)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._said, self._heard = False, b""
        self._socket.connect(address)

    def mechanism(self) -> str:
        """ "CURVE" or "NULL"; "" while it is not known."""
        while True:
            try:
                route, data = self._socket.recv_multipart(zmq.NOBLOCK)
                if not self._said:
                    self._socket.send_multipart(
                        [route, b"\xff" + bytes(8) + b"\x7f\x03"], zmq.NOBLOCK
                    )  # and never a mechanism
                    self._said = True
            except zmq.ZMQError:
                break  # nothing more now, or it hung up
            self._heard += data
        return self._heard[12:32].rstrip(b"\0").decode("ascii", "replace") if len(self._heard) >= 32 else ""

    def close(self) -> None:
        """Hang up."""
        self._socket.close(0)


class Watch:
    """The monitor of one socket, to be made before it connects and closed before it closes."""

    def __init__(self, socket: zmq.Socket, is_locked: bool, address: str) -> None:
        mask = 0
        for event in _EVENTS:
            mask |= event
        self._watched, self._is_locked, self._address = socket, is_locked, address
        self.let_in = 0  # handshakes that succeeded: more than one, and ZeroMQ has connected anew by itself
        self._hang_ups = 0
        self._greeting: Greeting | None = None  # asked for at the first hang-up
        # pyzmq names a monitor after the socket's file number, which may still be in use by the socket before.
        self._events = socket.get_monitor_socket(mask, f"inproc://dreamwright-watch-{next(_numbers)}")

    def newest(self) -> Verdict | None:
        """The newest verdict since the last call; None for no news."""
        found = None
        while True:
            try:
                told = self._events.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            verdict = _EVENTS.get(
                int.from_bytes(told[0][:2], sys.byteorder)
            )  # then a value, and a frame with the address
            if verdict is Verdict.WRONG_SERVER:
                self._hang_ups += 1
            elif verdict is not None:
                found, self._hang_ups = verdict, 0
                self.let_in += verdict is Verdict.LET_IN
        return found or (self._why_hung_up() if self._hang_ups else None)

    def _why_hung_up(self) -> Verdict | None:
        if self._greeting is None:
            self._greeting = Greeting(self._watched.context, self._address)
        mechanism = self._greeting.mechanism()
        if not mechanism and self._hang_ups < HANG_UPS:
            return None
        if mechanism and (mechanism == "CURVE") != self._is_locked:
            return Verdict.NO_ENCRYPTION
        return Verdict.WRONG_SERVER if self._is_locked else Verdict.HUNG_UP

    def close(self) -> None:
        """Let go of the monitor."""
        if self._greeting is not None:
            self._greeting.close()
        self._watched.disable_monitor()
        self._events.close(0)


def words(verdict: Verdict, address: str, lock: Lock | None) -> str:
    """Why a connection does not come about and who can do what about it, in a sentence."""
    if verdict is Verdict.UNKNOWN_KEY and lock is not None:
        return (
            f"the server at {address} does not know this computer's key yet; send the key (Copy My Key) to whoever runs the "
            f"server, who types: dreamwright keys allow NAME KEY. Its fingerprint is {fingerprint(lock.own.public)}; "
            "you are let in some seconds later"
        )
    if verdict is Verdict.WRONG_SERVER and lock is not None:
        return (
            f"the server at {address} is not the one of the connection string (fingerprint {fingerprint(lock.server)}): it hung up "
            "on a message that only the right key can read. Ask who runs it for its connection string of today, and paste that; "
            "behind a tunnel, see that the server runs"
        )
    if verdict is Verdict.NO_ENCRYPTION and lock is not None:
        return (
            f"the server at {address} does not encrypt, though its connection string promised it, so nothing was sent; ask who runs "
            "it, or forget its key if this is meant"
        )
    if verdict is Verdict.NO_ENCRYPTION:
        return f"the server at {address} wants an encrypted connection; paste its connection string, which dreamwright serve prints"
    return (
        f"something at {address} answers and hangs up; check address and port, and behind a tunnel that the server runs"
    )
