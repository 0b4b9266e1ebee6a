# SPDX-License-Identifier: GPL-3.0-or-later
"""Results of ZMTP handshakes. ZeroMQ reports them to a socket's monitor only, never to the socket itself."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from enum import Enum

import zmq

from .connection_state import ConnectionReason
from .credentials import KeyPair, fingerprint


class HandshakeResult(str, Enum):
    """Result of the latest handshake."""

    ACCEPTED = "accepted"
    UNKNOWN_CLIENT_KEY = "unknown client key"  # the right server, which does not know this client's key
    NOT_ADMITTED = "not admitted"  # a known key, which the server does not admit now
    WRONG_SERVER_KEY = "wrong server key"  # closed during the handshake: the server cannot decrypt what it received
    ENCRYPTION_MISMATCH = "encryption mismatch"  # one side encrypts and the other does not
    CLOSED_BY_PEER = "closed by peer"  # without encryption: the peer accepts and closes without a handshake


@dataclass(frozen=True)
class CurveCredentials:
    """What a client needs for an encrypted connection: the server's public key and its own key pair."""

    server: bytes
    own: KeyPair

    def apply_to(self, socket: zmq.Socket[bytes]) -> None:
        """Make an unconnected socket a CURVE client of this server only."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.own.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.own.secret)


_EVENTS = {
    zmq.EVENT_HANDSHAKE_SUCCEEDED: HandshakeResult.ACCEPTED,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: HandshakeResult.UNKNOWN_CLIENT_KEY,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: HandshakeResult.WRONG_SERVER_KEY,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: HandshakeResult.ENCRYPTION_MISMATCH,
}

NOT_NOW = (500).to_bytes(4, sys.byteorder)  # status in ZAP (ZeroMQ RFC 27) of a server that refuses a key it knows
MAX_CLOSES = 4  # closed connections in a row without a ZMTP greeting, after which the likely cause is reported
_counter = itertools.count()


class MechanismProbe:
    """Reads a server's ZMTP greeting, which names its security mechanism in clear (ZeroMQ RFC 23, bytes 12 to 31).

    When only one of two peers encrypts, both close the connection, and often neither is told why.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self._socket = context.socket(zmq.STREAM)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._is_greeted, self._received = False, b""
        self._socket.connect(address)

    def mechanism(self) -> str:
        """ "CURVE" or "NULL"; "" while it is unknown."""
        while True:
            try:
                route, data = self._socket.recv_multipart(zmq.NOBLOCK)
                if not self._is_greeted:
                    # The first eleven bytes of a greeting, without a mechanism: the server answers with its own.
                    self._socket.send_multipart([route, b"\xff" + bytes(8) + b"\x7f\x03"], zmq.NOBLOCK)
                    self._is_greeted = True
            except zmq.ZMQError:
                break  # nothing to read now, or the peer closed the connection
            self._received += data
        if len(self._received) < 32:
            return ""
        return self._received[12:32].rstrip(b"\0").decode("ascii", "replace")

    def close(self) -> None:
        """Close the probe's socket."""
        self._socket.close(0)


class ConnectionMonitor:
    """The monitor of one socket. Create it before the socket connects; close it before the socket closes."""

    def __init__(self, socket: zmq.Socket[bytes], is_encrypted: bool, address: str) -> None:
        mask = 0
        for event in _EVENTS:
            mask |= event
        self._socket, self._is_encrypted, self._address = socket, is_encrypted, address
        self.accepted = 0  # successful handshakes; more than one means that ZeroMQ reconnected by itself
        self._closes = 0
        self._probe: MechanismProbe | None = None  # created at the first close without a reason
        # pyzmq names a monitor after the socket's file descriptor, which the previous socket may still use.
        self._events = socket.get_monitor_socket(mask, f"inproc://dreamwright-monitor-{next(_counter)}")

    def poll(self) -> HandshakeResult | None:
        """The latest handshake result since the last call; None when there is none."""
        latest = None
        while True:
            try:
                frames = self._events.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            # The first frame is the event's number (16 bits) and a value, the second the peer's address.
            number = int.from_bytes(frames[0][:2], sys.byteorder)
            result = next((result for event, result in _EVENTS.items() if event == number), None)
            if result is HandshakeResult.UNKNOWN_CLIENT_KEY and frames[0][2:6] == NOT_NOW:
                result = HandshakeResult.NOT_ADMITTED
            if result is HandshakeResult.WRONG_SERVER_KEY:
                self._closes += 1
            elif result is not None:
                latest, self._closes = result, 0
                self.accepted += result is HandshakeResult.ACCEPTED
        return latest or (self._explain_close() if self._closes else None)

    def _explain_close(self) -> HandshakeResult | None:
        if self._probe is None:
            self._probe = MechanismProbe(self._socket.context, self._address)
        mechanism = self._probe.mechanism()
        if not mechanism and self._closes < MAX_CLOSES:
            return None
        if mechanism and (mechanism == "CURVE") != self._is_encrypted:
            return HandshakeResult.ENCRYPTION_MISMATCH
        return HandshakeResult.WRONG_SERVER_KEY if self._is_encrypted else HandshakeResult.CLOSED_BY_PEER

    def close(self) -> None:
        """Close the monitor and its probe."""
        if self._probe is not None:
            self._probe.close()
        self._socket.disable_monitor()
        self._events.close(0)


def describe_result(
    result: HandshakeResult, address: str, credentials: CurveCredentials | None
) -> tuple[ConnectionReason, str]:
    """Code and sentence of a failed handshake: what is wrong, and who can mend it how."""
    if result is HandshakeResult.UNKNOWN_CLIENT_KEY and credentials is not None:
        return ConnectionReason.UNKNOWN_CLIENT_KEY, (
            f"the server at {address} does not know this computer's key yet; send the key (Copy My Key) to the "
            "server's administrator, who runs: dreamwright keys allow NAME KEY. Its fingerprint is "
            f"{fingerprint(credentials.own.public)}; the connection opens a few seconds later"
        )
    if result is HandshakeResult.NOT_ADMITTED:
        return ConnectionReason.NOT_ADMITTED, (
            f"the server at {address} admits no more connections now, with the keys of one user or in all; close a "
            "Blender that needs none, or ask its administrator, whose log names the limit; it is tried again every few "
            "seconds"
        )
    if result is HandshakeResult.WRONG_SERVER_KEY and credentials is not None:
        return ConnectionReason.WRONG_SERVER_KEY, (
            f"the server at {address} is not the one of the connection string (fingerprint "
            f"{fingerprint(credentials.server)}): it cannot decrypt a message for that key. Ask its administrator for "
            "the current connection string and paste it; behind a tunnel, check that the server runs"
        )
    if result is HandshakeResult.ENCRYPTION_MISMATCH and credentials is not None:
        return ConnectionReason.SERVER_NOT_ENCRYPTED, (
            f"the server at {address} does not encrypt, although its connection string requires it; nothing was sent. "
            "Ask its administrator, or forget the server's key if this is intended"
        )
    if result is HandshakeResult.ENCRYPTION_MISMATCH:
        return ConnectionReason.ENCRYPTION_REQUIRED, (
            f"the server at {address} requires an encrypted connection; paste its connection string, which "
            "dreamwright serve prints"
        )
    return ConnectionReason.CLOSED_BY_PEER, (
        f"something at {address} accepts connections and closes them at once; check address and port, and behind a "
        "tunnel that the server runs"
    )
