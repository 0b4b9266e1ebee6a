# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast each kind of stranger is refused with its reason, and whether another's job can be told from none by bytes
or by time.

python -m tests.soak.unauthorized_clients --folder runs/strangers
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from dreamwright.backend.errors import ConfigError
from dreamwright.shared.client import Client
from dreamwright.shared.codec import pack, unpack
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.credentials import format_key, generate_key_pair
from dreamwright.shared.messages import MESSAGES, JobReply, ListJobs
from tests.soak.fast_server_process import FastServerProcess
from tests.testing.encrypted_server import EncryptedServer
from tests.testing.message_strategies import REQUESTS, valid
from tests.testing.scripted_worker_server import asked

NAMING = [
    name for name in REQUESTS if {"job", "previews_of"} & set(MESSAGES[name].__dataclass_fields__)
]  # the requests that name a job


def summary(took: list[float], tries: int) -> dict[str, Any]:
    millis = sorted(1000 * seconds for seconds in took)
    return (
        {
            "refused": f"{len(took)} of {tries}",
            "median_ms": round(statistics.median(millis), 1),
            "worst_ms": round(millis[-1], 1),
        }
        if took
        else {"refused": f"0 of {tries}"}
    )


def measure_refusal(
    server: FastServerProcess, make: Callable[[], CurveCredentials | None], words: str, tries: int
) -> dict[str, Any]:
    """From the connection to the reason, as the add-on's client tells it."""
    took = []
    for _ in range(tries):
        client = Client(server.address, lock=make())
        begun = time.perf_counter()
        client.connect()
        while client.state is not ConnectionState.UNAUTHORIZED and time.perf_counter() - begun < 20:
            client.tick()
            if client.state is ConnectionState.ONLINE:
                raise RuntimeError(f"it was let in: {words}")
            time.sleep(0.001)
        if client.state is ConnectionState.UNAUTHORIZED and words in client.reason:
            took.append(time.perf_counter() - begun)
        client.close()
    return summary(took, tries)


def plain(server: FastServerProcess, tries: int) -> dict[str, Any]:
    """PLAIN, which only libzmq's monitor tells of."""
    took = []
    for _ in range(tries):
        own = zmq.Context.instance().socket(zmq.DEALER)
        own.setsockopt(zmq.LINGER, 0)
        own.setsockopt(zmq.PLAIN_USERNAME, b"anna")
        own.setsockopt(zmq.PLAIN_PASSWORD, b"anna")
        watch = own.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_SUCCEEDED
        )
        begun = time.perf_counter()
        own.connect(server.address)
        if (
            watch.poll(20_000)
            and int.from_bytes(watch.recv_multipart()[0][:2], sys.byteorder) != zmq.EVENT_HANDSHAKE_SUCCEEDED
        ):
            took.append(time.perf_counter() - begun)
        own.disable_monitor()
        watch.close(0)
        own.close(0)
    return summary(took, tries)


def revoked(server: FastServerProcess, tries: int) -> dict[str, Any]:
    """From the request after the revocation to its refusal, on the connection that was let in."""
    took = []
    for number in range(tries):
        name = f"guest{number}"
        own = server.socket(server.authorized_client(name))
        own.send(pack(ListJobs(), 1))
        own.poll(20_000)
        own.recv()
        server.keys.revoke(name)
        begun = time.perf_counter()
        own.send(pack(ListJobs(), 2))
        if own.poll(20_000) and getattr(unpack(own.recv(), 10**6)[1], "code", "") == "not-admitted":
            took.append(time.perf_counter() - begun)
        own.close(0)
    return summary(took, tries)


def without_authenticator(folder: Path, tries: int, seconds: float = 2.0) -> str:
    """Right keys at a door whose doorkeeper does not answer."""
    with pytest.MonkeyPatch.context() as patch:
        encrypted_server = EncryptedServer(folder, patch)
        patch.setattr(encrypted_server.server._authenticator, "answer", lambda most=200: None)
        guests = []
        for number in range(tries):
            pair = generate_key_pair()
            encrypted_server.keys.allow(f"guest{number}", format_key(pair.public))
            guests.append(encrypted_server.connect_client(pair))
        encrypted_server.run_for(seconds)
        inside = sum(guest.state is ConnectionState.ONLINE for guest in guests)
        encrypted_server.close()
    return f"{inside} of {tries} with right keys let in within {seconds} s"


def with_empty_zap_domain(folder: Path) -> str:
    """libzmq lets everybody in then; such a door must not open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dreamwright.backend.server.transport.zap_authenticator.DOMAIN", "")
        try:
            EncryptedServer(folder, patch).close()
        except ConfigError as error:
            return f"no door: {error}"
    return "OPENED"


def compare_foreign_and_unknown_jobs(server: FastServerProcess, tries: int) -> dict[str, Any]:
    """Every request that names a job, of another's job and of none: bytes and times of the answers, in random order."""
    anna, bert, chief = (
        server.socket(server.authorized_client(name, name == "chief")) for name in ("anna", "bert", "chief")
    )

    def answer(own: zmq.Socket, data: bytes) -> tuple[bytes, float]:
        begun = time.perf_counter()
        own.send(data)
        if not own.poll(20_000):
            raise TimeoutError("no answer")
        return own.recv(), time.perf_counter() - begun

    job = unpack(answer(anna, pack(asked("t", prompt="a blue chair"), 1))[0], 10**6)[1].job.job
    dice, other, figures = random.Random(1), "0123456789abcdef", {}
    differing, all_theirs, all_nobodys = 0, [], []
    for name in NAMING:
        fields = valid(MESSAGES[name], dice).__dict__
        key = "job" if "job" in fields else "previews_of"
        theirs, nobodys = (pack(MESSAGES[name](**{**fields, key: which}), 7) for which in (job, other))
        took: dict[bytes, list[float]] = {theirs: [], nobodys: []}
        for _ in range(tries):
            heard = {}
            for data in dice.sample([theirs, nobodys], 2):
                heard[data], seconds = answer(bert, data)
                took[data].append(seconds)
            differing += heard[theirs].replace(job.encode(), other.encode()) != heard[nobodys]
        medians = [1000 * statistics.median(took[data]) for data in (theirs, nobodys)]
        figures[name] = [round(median, 3) for median in medians]
        all_theirs += took[theirs]
        all_nobodys += took[nobodys]
    slower = sum(a > b for a, b in zip(all_theirs, all_nobodys, strict=False)) / len(all_theirs)
    seen = unpack(answer(chief, pack(ListJobs(), 1))[0], 10**6)[1].jobs
    pinned = unpack(answer(chief, pack(MESSAGES["PinJob"](job, True), 1))[0], 10**6)[1]
    for own in (anna, bert, chief):
        own.close(0)
    return {
        "requests that name a job": len(NAMING),
        "pairs of answers": tries * len(NAMING),
        "pairs that differ in a byte": differing,
        "median_ms of another's job and of none": figures,
        "share of pairs in which another's job took longer": round(slower, 3),
        "an admin sees it": [found.job for found in seen] == [job] and isinstance(pinned, JobReply),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=300)
    options = parser.parse_args()
    server = FastServerProcess(options.folder / "real")
    try:
        tries = options.tries
        figures = {
            "no encryption": measure_refusal(server, lambda: None, "requires an encrypted connection", tries),
            "PLAIN": plain(server, tries),
            "wrong server key": measure_refusal(
                server,
                lambda: CurveCredentials(generate_key_pair().public, generate_key_pair()),
                "is not the one of the connection string",
                tries,
            ),
            "unknown key": measure_refusal(
                server,
                lambda: CurveCredentials(server.pair.public, generate_key_pair()),
                "does not know this computer's key yet",
                tries,
            ),
            "revoked in mid-session, its next request": revoked(server, tries),
            "no doorkeeper": without_authenticator(options.folder / "cut", tries),
            "empty domain": with_empty_zap_domain(options.folder / "empty"),
            "another's job": compare_foreign_and_unknown_jobs(server, options.pairs),
        }
    finally:
        server.end()
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
