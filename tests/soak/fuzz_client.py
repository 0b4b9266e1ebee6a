# SPDX-License-Identifier: GPL-3.0-or-later
"""Broken replies, events, pieces and previews for the client that runs inside of Blender, and broken words for the
workers' port.

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
TOLD = 50  # right and wrong messages between two that end the connection, where the draw gives so many


def rss_mb() -> float:
    """This process's resident memory, MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


class Wire:
    """A socket of which a test says what comes out."""

    def __init__(self) -> None:
        self.coming: list[list[bytes]] = []
        self.sent: list[bytes] = []

    def recv_multipart(self, flags: int = 0) -> list[bytes]:
        if not self.coming:
            raise zmq.Again()
        return self.coming.pop(0)

    def send(self, data: bytes, flags: int = 0) -> None:
        self.sent.append(data)

    def close(self, linger: int = 0) -> None:
        self.coming.clear()


class FuzzedClient:
    """A client, and everything that it does with what it is told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.client = Client("tcp://127.0.0.1:1", clock=lambda: self.now)
        self.client.connect()
        self.downloads: list[Any] = []
        self.replies = self.connections = 0
        self.again()

    def again(self) -> None:
        """A fresh connection, with requests of all sorts under way."""
        client = self.client
        client._drop_socket()
        self.wire = client._socket = Wire()
        client._pending.clear()
        client.state, client._handshake, client._received_at = ConnectionState.ONLINE, None, self.now
        client.subscribe("j1")
        self.connections += 1

    def request(self) -> None:
        """Keep some requests open, so that replies have something to answer."""
        if len(self.client._pending) < 8 and self.client._socket is not None:
            for message in (ListJobs(), CancelJob("j1")):
                self.client.request(message, self._answered)
            Download(self.client, "j1", "mesh", 3 * limits.CHUNK_BYTES, self.downloads.append).start()
            del self.downloads[:-5]

    def _answered(self, reply: Any) -> None:
        self.replies += 1

    def tell(self, frames: list[bytes]) -> list[Any]:
        """One message and one tick; Blender's timer would end with an exception that leaves it."""
        self.now += 0.02
        self.wire.coming.append(frames)
        self.wire.sent.clear()
        return self.client.tick()


def numbered(data: bytes, dice: random.Random, victim: FuzzedClient) -> bytes:
    """The same message as an event, or as the answer to something that was asked."""
    try:
        envelope = msgpack.unpackb(data)
        envelope["id"] = dice.choice([0, *victim.client._pending])
        if envelope["type"] in ("JobChanged", "JobDeleted"):
            envelope["id"] = 0
        return msgpack.packb(envelope)
    except Exception:  # broken already
        return data


def fuzz_client(count: int, number: int) -> dict[str, Any]:
    """What came of so many messages; an exception of the client's ends this, as it would end Blender's timer."""
    dice = random.Random(number)
    source, victim = MessageMutations(dice, FROM_SERVER, limits.REPLY_BYTES), FuzzedClient()
    links: Counter[str] = Counter()
    events = 0
    sizes: list[float] = []
    begun = time.monotonic()
    for index in range(count):
        if victim.client._socket is None:
            victim.again()
        victim.request()
        data = numbered(source.right(), dice, victim) if dice.random() < 0.5 else source.draw()[1]
        if dice.random() < 0.2:
            data = numbered(data, dice, victim)
        happened = victim.tell([data] if dice.random() < 0.99 else [data] * dice.choice([2, 600]))
        events += len(happened)
        links[victim.client.state.value] += 1
        if index % (count // 10) == 0:
            gc.collect()
            sizes.append(rss_mb())
    gc.collect()
    told = {
        "messages": count,
        "seconds": round(time.monotonic() - begun, 1),
        "connections ended by a broken message": victim.connections - 1,
        "events handed out": events,
        "requests answered": victim.replies,
        "state after": dict(links),
        "rss_mb after a tenth and at the end": [round(sizes[1], 1), round(rss_mb(), 1)],
        "jobs and requests remembered": [len(victim.client._subscription.newest), len(victim.client._pending)],
    }
    victim.client.close()
    return told


def fuzz_orders(count: int, number: int) -> dict[str, Any]:
    """The workers' port: bytes with and without the secret are an order, or a ProtocolError."""
    dice, secret = random.Random(number), "5" * 64
    kinds = list(MESSAGE_TYPES.values())
    came: Counter[str] = Counter()
    broken = MessageMutations(dice)
    for _ in range(count):
        data = bytearray(pack_order(secret, valid(dice.choice(kinds), dice)))
        lot = dice.randrange(5)
        if lot == 0:
            data = bytearray(secret.encode() + broken.draw()[1])
        elif lot == 1:
            data = bytearray(broken.draw()[1])
        elif lot == 2:
            body = msgpack.unpackb(bytes(data[64:]), strict_map_key=False)
            holder: Any = dice.choice([body, body[1]])
            key = dice.choice(list(holder) or ["new"] if isinstance(holder, dict) else [0, 1])
            holder[key] = dice.choice([None, [], {}, -1, 2**60, "x" * 5000, True, [[]], b"\xff", float("nan")])
            data = bytearray(secret.encode() + msgpack.packb(body))
        elif lot == 3:
            for _ in range(dice.randint(1, 4)):
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        try:
            came[type(unpack_order(secret, bytes(data))).__name__] += 1
        except ProtocolError:
            came["refused"] += 1
    return {"messages": count, "came": dict(came)}


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
