# SPDX-License-Identifier: GPL-3.0-or-later
"""Two hundred raw connections that send nothing, noise or half a greeting, while a client works.

    python -m tests.soak.silent_connections --folder runs/silent_connections

Runs against an encrypted and an unencrypted server process. Measures a client's request latency before, during and
after, the time a new client needs to connect, and the time until the server closes each raw connection.
"""

from __future__ import annotations

import random
import socket
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamwright.shared.client import Client
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.messages import ListJobs
from tests.soak.command_line import print_results, soak_parser
from tests.soak.observed_server import ObservedServer, online, tick_until

CLOSED_S = 30.0  # limit for an unfinished handshake (docs/operator/reliability.md)
GREETING = (
    b"\xff" + bytes(8) + b"\x7f\x03\x01"
)  # ZMTP 3.1 (ZeroMQ RFC 23): signature and version; 20 bytes of mechanism follow


def greeting(mechanism: bytes) -> bytes:
    """The 64-byte ZMTP greeting of a client."""
    return GREETING + mechanism.ljust(20, b"\0") + bytes(32)


def opening_bytes(mechanism: bytes, rng: random.Random) -> dict[str, bytes]:
    """Bytes that each kind of connection sends. "drip" sends one byte a second."""
    whole = greeting(mechanism)
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
    opening = {
        "nothing": b"",
        "noise": rng.randbytes(200),
        "a browser": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        "half a greeting": whole[:11],
        "a greeting": whole,
        "drip": whole,
        "a greeting and noise": whole + b"\x04\xc8" + rng.randbytes(200),
    }
    if mechanism == b"CURVE":
        opening["a greeting and half a hello"] = whole + b"\x04\xc8\x05HELLO\x01\x00" + bytes(50)
    else:
        opening["connected and silent"] = whole + b"\x04" + bytes([len(ready)]) + ready
    return opening


@dataclass
class RawConnection:
    """A raw connection."""

    kind: str
    socket: socket.socket
    started: float
    left: bytes = b""  # bytes still to send
    closed_s: float | None = None

    def step(self, now: float) -> None:
        """Detect a closed connection; send the next byte of a drip."""
        try:
            while self.closed_s is None:
                if not self.socket.recv(4096):
                    self.closed_s = now - self.started
            if self.left and now - self.started > 64 - len(self.left):
                self.socket.send(self.left[:1])
                self.left = self.left[1:]
        except BlockingIOError:
            pass  # no data yet, and the connection is open
        except OSError:
            self.closed_s = now - self.started


def open_raw_connection(address: str, kind: str, opening: bytes) -> RawConnection:
    """Connect and send the opening bytes."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    made = socket.create_connection((host, int(port)))
    drips = kind == "drip"
    if opening and not drips:
        made.sendall(opening)
    made.setblocking(False)
    return RawConnection(kind, made, time.monotonic(), opening if drips else b"")


class RequestLoop:
    """A client that sends one request after another and records the latencies."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.spent_ms: list[float] = []
        self._started: float | None = None
        self._next = 0.0

    def step(self) -> None:
        self.client.tick()
        now = time.monotonic()
        if self._started is None and now >= self._next:
            self._started, self._next = now, now + 0.02
            self.client.request(ListJobs(), self._answered)

    def _answered(self, reply: Any) -> None:
        self.spent_ms.append(1000 * (time.monotonic() - self._started))
        self._started = None
        if isinstance(reply, Exception):
            raise reply

    def latencies(self) -> dict[str, float]:
        """Latency figures of the requests since the last call."""
        spent, self.spent_ms = sorted(self.spent_ms), []
        return {
            "requests": len(spent),
            "median ms": round(statistics.median(spent), 2),
            "p99 ms": round(spent[int(0.99 * (len(spent) - 1))], 1),
            "worst ms": round(spent[-1], 1),
        }


def step_until_closed(requests: RequestLoop, connections: list[RawConnection], seconds: float) -> None:
    """Step until all raw connections are closed, at most `seconds`; without connections, for `seconds`."""
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end and (not connections or any(one.closed_s is None for one in connections)):
        requests.step()
        for one in connections:
            if one.closed_s is None:
                one.step(now)
        time.sleep(0.001)


def run_round(
    server: ObservedServer, mechanism: bytes, user: str, count: int, seed: int, quiet_s: float
) -> tuple[dict[str, Any], list[str]]:
    """Figures and faults of one round."""
    requests = RequestLoop(online(server.client(user)))
    faults: list[str] = []
    step_until_closed(requests, [], quiet_s)
    figures: dict[str, Any] = {"before": {**requests.latencies(), **vars(server.stats())}}
    opening = opening_bytes(mechanism, random.Random(seed))
    connections = [open_raw_connection(server.address, kind, opening[kind]) for kind in (list(opening) * count)[:count]]
    new_client = server.client(user)
    started = time.monotonic()
    connected_s: list[float] = []

    def is_connected() -> bool:
        requests.step()
        for one in connections:
            if one.closed_s is None:
                one.step(time.monotonic())
        return new_client.state is ConnectionState.ONLINE

    tick_until([new_client], is_connected)
    connected_s.append(time.monotonic() - started)
    new_client.close()
    most = server.stats()
    step_until_closed(requests, connections, CLOSED_S + 15.0)
    figures["during"] = {
        **requests.latencies(),
        **vars(most),
        "a new client connects after s": round(connected_s[0], 2),
    }
    closed: dict[str, list[float]] = {}
    for one in connections:
        one.socket.close()
        if one.closed_s is None or one.closed_s > CLOSED_S:
            faults.append(f"{one.kind}: closed after {one.closed_s} s; the limit is {CLOSED_S} s")
        closed.setdefault(one.kind, []).append(float("inf") if one.closed_s is None else one.closed_s)
    figures["closed after s (first, last)"] = {
        kind: [round(min(all_s), 2), round(max(all_s), 2)] for kind, all_s in closed.items()
    }
    step_until_closed(requests, [], quiet_s)
    figures["after"] = {**requests.latencies(), **vars(server.stats())}
    requests.client.close()
    if figures["after"]["fds"] > figures["before"]["fds"] + 1:
        faults.append(f"open files: {figures['before']['fds']} before, {figures['after']['fds']} after")
    return figures, faults


def soak(
    folder: Path,
    count: int,
    seed: int,
    rounds: int = 1,
    quiet_s: float = 5.0,
    modes: tuple[str, ...] = ("encrypted", "unencrypted"),
) -> tuple[dict[str, Any], list[str]]:
    """Run the rounds on an encrypted and an unencrypted server."""
    figures: dict[str, Any] = {}
    faults: list[str] = []
    for mode in modes:
        user = "anna" if mode == "encrypted" else ""
        server = ObservedServer(folder / mode, [user] if user else []).start()
        try:
            for number in range(rounds):
                name = f"{mode}, {number + 1}"
                figures[name], broken = run_round(
                    server, b"CURVE" if user else b"NULL", user, count, seed + number, quiet_s
                )
                faults += [f"{name}: {fault}" for fault in broken]
            faults += [f"{mode}: {line}" for line in server.faults()]
        finally:
            server.stop()
    return figures, faults


def main() -> int:
    parser = soak_parser(__doc__)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures, faults = soak(options.folder, options.connections, options.seed, options.rounds)
    return print_results(figures, faults)


if __name__ == "__main__":
    sys.exit(main())
