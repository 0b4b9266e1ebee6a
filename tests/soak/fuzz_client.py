# SPDX-License-Identifier: GPL-3.0-or-later
"""Malformed replies, events, chunks and previews for the client used inside Blender, and malformed worker reports.

python -m tests.soak.fuzz_client --messages 20000 --seed 1
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import resource
import sys
import time
from collections import Counter
from typing import Any

import msgpack
import zmq

from dreamwright.backend.server.workers.worker_protocol import MESSAGE_TYPES, pack_order, unpack_order
from dreamwright.shared import limits
from dreamwright.shared.client import Client
from dreamwright.shared.codec import pack
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.messages import MESSAGES, CancelJob, ListJobs
from dreamwright.shared.transfer import Download
from tests.testing.message_mutations import MessageMutations
from tests.testing.message_strategies import REQUESTS, valid

FROM_SERVER = tuple(name for name in MESSAGES if name not in REQUESTS)


def rss_mb() -> float:
    """This process's resident memory, MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


class FakeSocket:
    """A fake socket whose incoming messages are set by the test."""

    def __init__(self) -> None:
        self.incoming: list[list[bytes]] = []
        self.sent: list[bytes] = []

    def recv_multipart(self, flags: int = 0) -> list[bytes]:
        if not self.incoming:
            raise zmq.Again()
        return self.incoming.pop(0)

    def send(self, data: bytes, flags: int = 0) -> None:
        self.sent.append(data)

    def close(self, linger: int = 0) -> None:
        self.incoming.clear()


class FuzzedClient:
    """A client on a fake socket, with open requests and downloads."""

    def __init__(self) -> None:
        self.now = 0.0
        self.client = Client("tcp://127.0.0.1:1", clock=lambda: self.now)
        self.client.connect()
        self.downloads: list[Any] = []
        self.replies = self.connections = 0
        self.reconnect()

    def reconnect(self) -> None:
        """Replace the connection by a new one without pending requests."""
        client = self.client
        client._drop_socket()
        self.socket = client._socket = FakeSocket()
        client._pending.clear()
        client.state, client._handshake, client._received_at = ConnectionState.ONLINE, None, self.now
        client.subscribe("j1")
        self.connections += 1

    def request(self) -> None:
        """Keep some requests and a download pending, so that replies match a request."""
        if len(self.client._pending) < 8 and self.client._socket is not None:
            for message in (ListJobs(), CancelJob("j1")):
                self.client.request(message, self._answered)
            Download(self.client, "j1", "mesh", 3 * limits.CHUNK_BYTES, self.downloads.append).start()
            del self.downloads[:-5]

    def _answered(self, reply: Any) -> None:
        self.replies += 1

    def deliver(self, frames: list[bytes]) -> list[Any]:
        """Deliver one message and tick once. An exception here would end Blender's timer."""
        self.now += 0.02
        self.socket.incoming.append(frames)
        self.socket.sent.clear()
        return self.client.tick()


def numbered(data: bytes, rng: random.Random, fuzzed: FuzzedClient) -> bytes:
    """The same message with the id of an event or of a pending request."""
    try:
        envelope = msgpack.unpackb(data)
        envelope["id"] = rng.choice([0, *fuzzed.client._pending])
        if envelope["type"] in ("JobChanged", "JobDeleted"):
            envelope["id"] = 0
        return msgpack.packb(envelope)
    except Exception:  # malformed already
        return data


def fuzz_client(count: int, number: int) -> dict[str, Any]:
    """Deliver malformed messages and return figures. An exception of the client propagates and fails the run."""
    rng = random.Random(number)
    source, fuzzed = MessageMutations(rng, FROM_SERVER, limits.REPLY_BYTES), FuzzedClient()
    links: Counter[str] = Counter()
    events = 0
    sizes: list[float] = []
    started = time.monotonic()
    for index in range(count):
        if fuzzed.client._socket is None:
            fuzzed.reconnect()
        fuzzed.request()
        data = numbered(source.right(), rng, fuzzed) if rng.random() < 0.5 else source.draw()[1]
        if rng.random() < 0.2:
            data = numbered(data, rng, fuzzed)
        happened = fuzzed.deliver([data] if rng.random() < 0.99 else [data] * rng.choice([2, 600]))
        events += len(happened)
        links[fuzzed.client.state.value] += 1
        if index % (count // 10) == 0:
            gc.collect()
            sizes.append(rss_mb())
    gc.collect()
    figures = {
        "messages": count,
        "seconds": round(time.monotonic() - started, 1),
        "connections closed by a malformed message": fuzzed.connections - 1,
        "events delivered": events,
        "requests answered": fuzzed.replies,
        "state after": dict(links),
        "rss_mb after a tenth and at the end": [round(sizes[1], 1), round(rss_mb(), 1)],
        "jobs and requests stored": [len(fuzzed.client._subscription.newest), len(fuzzed.client._pending)],
    }
    fuzzed.client.close()
    return figures


def fuzz_orders(count: int, number: int) -> dict[str, Any]:
    """Decode malformed worker messages, with and without the secret: each is a message or a ProtocolError."""
    rng, secret = random.Random(number), "5" * 64
    kinds = list(MESSAGE_TYPES.values())
    decoded: Counter[str] = Counter()
    broken = MessageMutations(rng)
    for _ in range(count):
        data = bytearray(pack_order(secret, valid(rng.choice(kinds), rng)))
        draw = rng.randrange(5)
        if draw == 0:
            data = bytearray(secret.encode() + broken.draw()[1])
        elif draw == 1:
            data = bytearray(broken.draw()[1])
        elif draw == 2:
            body = msgpack.unpackb(bytes(data[64:]), strict_map_key=False)
            holder: Any = rng.choice([body, body[1]])
            key = rng.choice(list(holder) or ["new"] if isinstance(holder, dict) else [0, 1])
            holder[key] = rng.choice([None, [], {}, -1, 2**60, "x" * 5000, True, [[]], b"\xff", float("nan")])
            data = bytearray(secret.encode() + msgpack.packb(body))
        elif draw == 3:
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            decoded[type(unpack_order(secret, bytes(data))).__name__] += 1
        except ProtocolError:
            decoded["refused"] += 1
    return {"messages": count, "decoded": dict(decoded)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    pack(ListJobs())
    print(
        json.dumps(
            {
                "client": fuzz_client(options.messages, options.seed),
                "workers' port": fuzz_orders(options.messages, options.seed),
            },
            indent=1,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
