# SPDX-License-Identifier: GPL-3.0-or-later
"""A thousand artists on one encrypted server, a hundred of whom watch previews: latency, memory for each, growth.

    python -m tests.soak.thousand_clients --folder DIR --clients 1000 --watching 100 --minutes 5

Every client greets each second, as the add-on does, and asks for its jobs about every four seconds. Workers are
simulated. All clients are in this one process, whose own delay is in the latencies: the median of an empty loop is
printed beside them.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import zmq

from dreamwright.backend.server.transport.authorized_keys import User
from dreamwright.shared import limits
from dreamwright.shared.codec import pack, unpack
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.credentials import KeyPair, format_key, generate_key_pair
from dreamwright.shared.messages import Hello, ListJobs, PreviewAck, PreviewFrame, Refusal, SubmitJob, Subscribe
from tests.soak.command_line import print_results, soak_parser
from tests.soak.observed_server import ObservedServer, ask, online, process_stats

ALLOWED_P99_MS = 100.0
LIST_INTERVAL_S = 4.0
SAMPLE_S = 5.0
CONNECTED_AT_ONCE = 25  # of which each has its handshake done before the next ones begin


class Artist:
    """One connection with a key of its own."""

    def __init__(self, context: zmq.Context[Any], address: str, credentials: CurveCredentials, watches: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        for option, value in ((zmq.LINGER, 0), (zmq.RCVHWM, 200), (zmq.SNDHWM, 200)):
            self.socket.setsockopt(option, value)
        credentials.apply_to(self.socket)
        self.socket.connect(address)
        self.watches, self.number = watches, 0
        self.sent: dict[int, tuple[str, float]] = {}
        self.greet_at = self.list_at = 0.0
        self.previews = 0
        self.is_greeted = False

    def send(self, message: Any) -> None:
        self.number += 1
        self.sent[self.number] = type(message).__name__, time.perf_counter()
        self.socket.send(pack(message, self.number), zmq.NOBLOCK)

    def act(self, now: float, rng: random.Random) -> None:
        """Send what is due."""
        if now >= self.greet_at:
            self.greet_at = now + limits.HEARTBEAT_S
            self.send(Hello("c" * 32, "soak"))
        if self.is_greeted and now >= self.list_at:
            first = not self.list_at
            self.list_at = now + rng.uniform(0.5, 1.5) * LIST_INTERVAL_S
            self.send(Subscribe(self.watches) if first else ListJobs(0, 10))

    def read(self, took: dict[str, list[float]], faults: list[str]) -> None:
        while True:
            try:
                number, message = unpack(self.socket.recv(zmq.NOBLOCK), limits.REPLY_BYTES)
            except zmq.Again:
                return
            if isinstance(message, PreviewFrame):
                self.previews += 1
                self.socket.send(pack(PreviewAck(1), 0), zmq.NOBLOCK)
            elif number in self.sent:
                kind, at = self.sent.pop(number)
                took.setdefault(kind, []).append(time.perf_counter() - at)
                self.is_greeted = True
            if isinstance(message, Refusal):
                faults.append(f"{message.code}: {message.message}")


def allow(server: ObservedServer, count: int) -> list[KeyPair]:
    """Keys of so many users, allowed at once."""
    pairs = [generate_key_pair() for _ in range(count)]
    users = server._keys.users()
    for number, pair in enumerate(pairs):
        users[f"artist{number}"] = User(f"artist{number}", False, (format_key(pair.public),), time.time())
    server._keys._write_users(users)
    return pairs


def milliseconds(took: list[float]) -> dict[str, float]:
    ordered = sorted(1000 * seconds for seconds in took) or [0.0]
    return {
        "count": len(took), "median": round(statistics.median(ordered), 1),
        "p99": round(ordered[int(0.99 * (len(ordered) - 1))], 1), "worst": round(ordered[-1], 1),
    }  # fmt: skip


def slope_mb_per_hour(samples: list[tuple[float, float]]) -> float:
    """Least squares through (seconds, MB)."""
    if len(samples) < 3:
        return 0.0
    return round(3600 * statistics.linear_regression(*zip(*samples, strict=True)).slope, 2)


class Soak:
    """The server, its clients and what was measured."""

    def __init__(self, folder: Path, clients: int, watching: int) -> None:
        limits_given = {"connections-total": clients + 50, "connections-per-user": watching + 50, "grace": 0}
        options = [word for name, value in limits_given.items() for word in (f"--{name}", str(value))]
        self.server = ObservedServer(folder, (), ["admin"], options, "tests.testing.preview_stream_server")
        pairs = allow(self.server, clients)
        self.server.start()
        self.rng, self.faults = random.Random(2), []
        self.took: dict[str, list[float]] = {}
        self.loops: list[float] = []
        self.context: zmq.Context[Any] = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, 2 * clients + 100)
        self.poller = zmq.Poller()
        self.artists: dict[Any, Artist] = {}
        self.before_mb = self.server.stats().rss_mb
        # One job runs; it belongs to an admin's key, with which the watching clients connect: others may not see it.
        admin = online(self.server.client("admin"))
        job = ask(admin, SubmitJob("t", "a red mushroom", "", "starter", "draft", 0, {})).job.job
        admin.close()
        started = time.monotonic()
        for number, pair in enumerate(pairs):
            watches = job if number < watching else ""
            own = self.server.pairs["admin"] if watches else pair
            artist = Artist(self.context, self.server.address, CurveCredentials(self.server.server_key, own), watches)
            self.artists[artist.socket] = artist
            self.poller.register(artist.socket, zmq.POLLIN)
            if number % CONNECTED_AT_ONCE == 0:
                self.until(lambda: all(other.is_greeted for other in list(self.artists.values())[:-1]), 120.0)
        self.until(lambda: all(artist.is_greeted for artist in self.artists.values()), 120.0)
        self.connected_s = time.monotonic() - started

    def loop(self) -> None:
        """Send and read once for all clients."""
        started = time.perf_counter()
        now = time.monotonic()
        for artist in self.artists.values():
            artist.act(now, self.rng)
        for socket, _ in self.poller.poll(5):
            self.artists[socket].read(self.took, self.faults)
        self.loops.append(time.perf_counter() - started)

    def until(self, done: Any, limit_s: float) -> None:
        end = time.monotonic() + limit_s
        while not done():
            if time.monotonic() > end:
                raise TimeoutError(f"{sum(a.is_greeted for a in self.artists.values())} clients are connected")
            self.loop()

    def run(self, seconds: float) -> dict[str, Any]:
        self.until(lambda: all(artist.list_at for artist in self.artists.values()), 60.0)
        end = time.monotonic() + 5.0
        while time.monotonic() < end:  # the first snapshots
            self.loop()
        self.took.clear()
        self.loops.clear()
        previews = sum(artist.previews for artist in self.artists.values())
        samples: list[tuple[float, float]] = []
        started, cpu_s = time.monotonic(), self.server.stats().cpu_s
        while (spent := time.monotonic() - started) < seconds:
            self.loop()
            if spent >= SAMPLE_S * (len(samples) + 1):
                samples.append((spent, self.server.stats().rss_mb))
        stats = self.server.stats()
        count = len(self.artists)
        figures: dict[str, Any] = {
            "clients": count,
            "load average": os.getloadavg()[0],
            "seconds to connect all": round(self.connected_s, 1),
            "requests, ms": {kind: milliseconds(took) for kind, took in self.took.items()},
            "all requests, ms": milliseconds([seconds for took in self.took.values() for seconds in took]),
            "loop of this process, ms": milliseconds(self.loops),
            "previews a second": round((sum(a.previews for a in self.artists.values()) - previews) / seconds, 1),
            "server cpu share": round((stats.cpu_s - cpu_s) / (time.monotonic() - started), 2),
            "client cpu s": process_stats(os.getpid()).cpu_s,
            "server MB before, after": [self.before_mb, stats.rss_mb],
            "server kB per client": round(1000 * (stats.rss_mb - self.before_mb) / count),
            "server MB per hour": slope_mb_per_hour(samples),
            "server files": stats.fds,
        }
        if figures["all requests, ms"]["p99"] > ALLOWED_P99_MS:
            self.faults.append(f"p99 is {figures['all requests, ms']['p99']} ms; allowed are {ALLOWED_P99_MS}")
        return figures

    def close(self) -> None:
        self.context.destroy(0)
        self.server.stop()


def main() -> int:
    parser = soak_parser(__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--watching", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=5.0)
    options = parser.parse_args()
    soak = Soak(options.folder, options.clients, options.watching)
    try:
        figures = soak.run(60 * options.minutes)
        return print_results(figures, soak.faults[:20] + soak.server.faults())
    finally:
        soak.close()


if __name__ == "__main__":
    sys.exit(main())
