# SPDX-License-Identifier: GPL-3.0-or-later
"""Two hundred raw connections that say nothing, noise or half a greeting, while an artist goes on working.

    python -m tests.soak.silent_connections --folder runs/silent_connections

Against an encrypted server and an open loopback one, each a process of its own. How long a request of the artist takes
before, meanwhile and afterwards; how long a newcomer needs to be let in; when the server hangs up on each of the others.
"""

from __future__ import annotations

import argparse
import json
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
from tests.soak.served import Served, online, turn_until

DROPPED_S = 30.0  # the promise
GREETING = (
    b"\xff" + bytes(8) + b"\x7f\x03\x01"
)  # of ZMTP 3 (ZeroMQ's RFC 23): signature and version, then 20 bytes of mechanism


def greeting(mechanism: bytes) -> bytes:
    """64 bytes that a client begins with."""
    return GREETING + mechanism.ljust(20, b"\0") + bytes(32)


def kinds(mechanism: bytes, dice: random.Random) -> dict[str, bytes]:
    """What each kind of stranger says; "drip" says a byte of it a second."""
    whole = greeting(mechanism)
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
    said = {
        "nothing": b"",
        "noise": dice.randbytes(200),
        "a browser": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        "half a greeting": whole[:11],
        "a greeting": whole,
        "drip": whole,
        "a greeting and noise": whole + b"\x04\xc8" + dice.randbytes(200),
    }
    if mechanism == b"CURVE":
        said["a greeting and half a hello"] = whole + b"\x04\xc8\x05HELLO\x01\x00" + bytes(50)
    else:
        said["let in and silent"] = whole + b"\x04" + bytes([len(ready)]) + ready
    return said


@dataclass
class Stranger:
    """A raw connection."""

    kind: str
    socket: socket.socket
    begun: float
    left: bytes = b""  # still to be dripped
    dropped_s: float | None = None

    def step(self, now: float) -> None:
        """Notice being hung up on; drip."""
        try:
            while self.dropped_s is None:
                if not self.socket.recv(4096):
                    self.dropped_s = now - self.begun
            if self.left and now - self.begun > 64 - len(self.left):
                self.socket.send(self.left[:1])
                self.left = self.left[1:]
        except BlockingIOError:
            pass  # nothing was said, and the connection stands
        except OSError:
            self.dropped_s = now - self.begun


def knock(address: str, kind: str, said: bytes) -> Stranger:
    """Connect and say it."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    made = socket.create_connection((host, int(port)))
    drips = kind == "drip"
    if said and not drips:
        made.sendall(said)
    made.setblocking(False)
    return Stranger(kind, made, time.monotonic(), said if drips else b"")


class Artist:
    """Asks one thing after another, and keeps how long each took."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.spent_ms: list[float] = []
        self._begun: float | None = None
        self._next = 0.0

    def step(self) -> None:
        self.client.tick()
        now = time.monotonic()
        if self._begun is None and now >= self._next:
            self._begun, self._next = now, now + 0.02
            self.client.request(ListJobs(), self._answered)

    def _answered(self, reply: Any) -> None:
        self.spent_ms.append(1000 * (time.monotonic() - self._begun))
        self._begun = None
        if isinstance(reply, Exception):
            raise reply

    def told(self) -> dict[str, float]:
        """Of the requests since the last call."""
        spent, self.spent_ms = sorted(self.spent_ms), []
        return {
            "requests": len(spent),
            "median ms": round(statistics.median(spent), 2),
            "p99 ms": round(spent[int(0.99 * (len(spent) - 1))], 1),
            "worst ms": round(spent[-1], 1),
        }


def watch(artist: Artist, strangers: list[Stranger], seconds: float) -> None:
    """Go on until all strangers were dropped, at most so long; without any, just so long."""
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end and (not strangers or any(one.dropped_s is None for one in strangers)):
        artist.step()
        for one in strangers:
            if one.dropped_s is None:
                one.step(now)
        time.sleep(0.001)


def besiege(
    served: Served, mechanism: bytes, user: str, count: int, seed: int, calm_s: float
) -> tuple[dict[str, Any], list[str]]:
    """Figures of one siege, and what broke a promise."""
    artist = Artist(online(served.client(user)))
    faults: list[str] = []
    watch(artist, [], calm_s)
    told: dict[str, Any] = {"before": {**artist.told(), **vars(served.vitals())}}
    said = kinds(mechanism, random.Random(seed))
    strangers = [knock(served.address, kind, said[kind]) for kind in (list(said) * count)[:count]]
    newcomer = served.client(user)
    begun = time.monotonic()
    let_in: list[float] = []

    def is_in() -> bool:
        artist.step()
        for one in strangers:
            if one.dropped_s is None:
                one.step(time.monotonic())
        return newcomer.state is ConnectionState.ONLINE

    turn_until([newcomer], is_in)
    let_in.append(time.monotonic() - begun)
    newcomer.close()
    most = served.vitals()
    watch(artist, strangers, DROPPED_S + 15.0)
    told["meanwhile"] = {**artist.told(), **vars(most), "a newcomer is let in after s": round(let_in[0], 2)}
    dropped: dict[str, list[float]] = {}
    for one in strangers:
        one.socket.close()
        if one.dropped_s is None or one.dropped_s > DROPPED_S:
            faults.append(f"{one.kind}: the server hung up after {one.dropped_s} s")
        dropped.setdefault(one.kind, []).append(float("inf") if one.dropped_s is None else one.dropped_s)
    told["hung up on after s (first, last)"] = {
        kind: [round(min(all_s), 2), round(max(all_s), 2)] for kind, all_s in dropped.items()
    }
    watch(artist, [], calm_s)
    told["afterwards"] = {**artist.told(), **vars(served.vitals())}
    artist.client.close()
    if told["afterwards"]["fds"] > told["before"]["fds"] + 1:
        faults.append(f"files: {told['before']['fds']} before, {told['afterwards']['fds']} afterwards")
    return told, faults


def soak(
    folder: Path,
    count: int,
    seed: int,
    rounds: int = 1,
    calm_s: float = 5.0,
    doors: tuple[str, ...] = ("encrypted", "open"),
) -> tuple[dict[str, Any], list[str]]:
    """Both kinds of door."""
    told: dict[str, Any] = {}
    faults: list[str] = []
    for door in doors:
        user = "anna" if door == "encrypted" else ""
        served = Served(folder / door, [user] if user else []).start()
        try:
            for number in range(rounds):
                name = f"{door}, {number + 1}"
                told[name], broken = besiege(served, b"CURVE" if user else b"NULL", user, count, seed + number, calm_s)
                faults += [f"{name}: {fault}" for fault in broken]
            faults += [f"{door}: {line}" for line in served.faults()]
        finally:
            served.stop()
    return told, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    told, faults = soak(options.folder, options.connections, options.seed, options.rounds)
    print(json.dumps(told, indent=1))
    print(f"{len(faults)} faults", *faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
