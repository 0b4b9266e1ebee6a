# SPDX-License-Identifier: GPL-3.0-or-later
"""Time until each kind of unauthorized client is refused with its reason, and whether replies reveal foreign jobs.

python -m tests.soak.unauthorized_clients --folder runs/unauthorized_clients
"""

from __future__ import annotations

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
from tests.soak.command_line import soak_parser
from tests.soak.fast_server_process import FastServerProcess
from tests.testing.encrypted_server import EncryptedServer
from tests.testing.message_strategies import REQUESTS, valid
from tests.testing.scripted_worker_server import submit_message

NAMING = [
    name for name in REQUESTS if {"job", "previews_of"} & set(MESSAGES[name].__dataclass_fields__)
]  # requests with a job id


def summary(durations: list[float], tries: int) -> dict[str, Any]:
    millis = sorted(1000 * seconds for seconds in durations)
    return (
        {
            "refused": f"{len(durations)} of {tries}",
            "median_ms": round(statistics.median(millis), 1),
            "worst_ms": round(millis[-1], 1),
        }
        if durations
        else {"refused": f"0 of {tries}"}
    )


def measure_refusal(
    server: FastServerProcess, make: Callable[[], CurveCredentials | None], reason: str, tries: int
) -> dict[str, Any]:
    """Time from connecting until the client reports the reason of its refusal."""
    durations = []
    for _ in range(tries):
        client = Client(server.address, credentials=make())
        started = time.perf_counter()
        client.connect()
        while client.state is not ConnectionState.UNAUTHORIZED and time.perf_counter() - started < 20:
            client.tick()
            if client.state is ConnectionState.ONLINE:
                raise RuntimeError(f"an unauthorized client is connected; expected: {reason}")
            time.sleep(0.001)
        if client.state is ConnectionState.UNAUTHORIZED and reason in client.reason:
            durations.append(time.perf_counter() - started)
        client.close()
    return summary(durations, tries)


def measure_plain(server: FastServerProcess, tries: int) -> dict[str, Any]:
    """Time until a PLAIN handshake fails, by libzmq's socket monitor."""
    durations = []
    for _ in range(tries):
        connection = zmq.Context.instance().socket(zmq.DEALER)
        connection.setsockopt(zmq.LINGER, 0)
        connection.setsockopt(zmq.PLAIN_USERNAME, b"anna")
        connection.setsockopt(zmq.PLAIN_PASSWORD, b"anna")
        monitor = connection.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_SUCCEEDED
        )
        started = time.perf_counter()
        connection.connect(server.address)
        if (
            monitor.poll(20_000)
            and int.from_bytes(monitor.recv_multipart()[0][:2], sys.byteorder) != zmq.EVENT_HANDSHAKE_SUCCEEDED
        ):
            durations.append(time.perf_counter() - started)
        connection.disable_monitor()
        monitor.close(0)
        connection.close(0)
    return summary(durations, tries)


def measure_revoked(server: FastServerProcess, tries: int) -> dict[str, Any]:
    """Time from a request after the key's revocation until its refusal, on an existing connection."""
    durations = []
    for number in range(tries):
        name = f"client{number}"
        connection = server.socket(server.authorized_client(name))
        connection.send(pack(ListJobs(), 1))
        connection.poll(20_000)
        connection.recv()
        server.keys.revoke(name)
        started = time.perf_counter()
        connection.send(pack(ListJobs(), 2))
        if connection.poll(20_000) and getattr(unpack(connection.recv(), 10**6)[1], "code", "") == "not-admitted":
            durations.append(time.perf_counter() - started)
        connection.close(0)
    return summary(durations, tries)


def without_authenticator(folder: Path, tries: int, seconds: float = 2.0) -> str:
    """Clients with authorized keys at a server whose authenticator does not answer."""
    with pytest.MonkeyPatch.context() as patch:
        encrypted_server = EncryptedServer(folder, patch)
        patch.setattr(encrypted_server.server._authenticator, "answer", lambda most=200: None)
        clients = []
        for number in range(tries):
            pair = generate_key_pair()
            encrypted_server.keys.allow(f"client{number}", format_key(pair.public))
            clients.append(encrypted_server.connect_client(pair))
        encrypted_server.run_for(seconds)
        connected = sum(client.state is ConnectionState.ONLINE for client in clients)
        encrypted_server.close()
    return f"{connected} of {tries} with authorized keys connect within {seconds} s"


def with_empty_zap_domain(folder: Path) -> str:
    """An empty ZAP domain makes libzmq skip authentication, so the server must refuse to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dreamwright.backend.server.transport.zap_authenticator.DOMAIN", "")
        try:
            EncryptedServer(folder, patch).close()
        except ConfigError as error:
            return f"refused: {error}"
    return "STARTED"


def compare_foreign_and_unknown_jobs(server: FastServerProcess, tries: int) -> dict[str, Any]:
    """Bytes and latency of the replies to every request with a job id, for another user's job and for an unknown id."""
    anna, bert, admin = (
        server.socket(server.authorized_client(name, name == "admin")) for name in ("anna", "bert", "admin")
    )

    def answer(connection: zmq.Socket, data: bytes) -> tuple[bytes, float]:
        started = time.perf_counter()
        connection.send(data)
        if not connection.poll(20_000):
            raise TimeoutError("no reply within 20 s")
        return connection.recv(), time.perf_counter() - started

    job = unpack(answer(anna, pack(submit_message("t", prompt="a blue chair"), 1))[0], 10**6)[1].job.job
    rng, other, figures = random.Random(1), "0123456789abcdef", {}
    differing, all_foreign, all_unknown = 0, [], []
    for name in NAMING:
        fields = valid(MESSAGES[name], rng).__dict__
        key = "job" if "job" in fields else "previews_of"
        foreign, unknown = (pack(MESSAGES[name](**{**fields, key: which}), 7) for which in (job, other))
        durations: dict[bytes, list[float]] = {foreign: [], unknown: []}
        for _ in range(tries):
            replies = {}
            for data in rng.sample([foreign, unknown], 2):
                replies[data], seconds = answer(bert, data)
                durations[data].append(seconds)
            differing += replies[foreign].replace(job.encode(), other.encode()) != replies[unknown]
        medians = [1000 * statistics.median(durations[data]) for data in (foreign, unknown)]
        figures[name] = [round(median, 3) for median in medians]
        all_foreign += durations[foreign]
        all_unknown += durations[unknown]
    slower = sum(a > b for a, b in zip(all_foreign, all_unknown, strict=True)) / len(all_foreign)
    seen = unpack(answer(admin, pack(ListJobs(), 1))[0], 10**6)[1].jobs
    pinned = unpack(answer(admin, pack(MESSAGES["PinJob"](job, True), 1))[0], 10**6)[1]
    for connection in (anna, bert, admin):
        connection.close(0)
    return {
        "requests with a job id": len(NAMING),
        "pairs of replies": tries * len(NAMING),
        "pairs that differ in a byte": differing,
        "median_ms of another user's job and of an unknown id": figures,
        "share of pairs in which another user's job took longer": round(slower, 3),
        "an admin sees the job": [found.job for found in seen] == [job] and isinstance(pinned, JobReply),
    }


def main() -> int:
    parser = soak_parser(__doc__)
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=300)
    options = parser.parse_args()
    server = FastServerProcess(options.folder / "real")
    try:
        tries = options.tries
        figures = {
            "no encryption": measure_refusal(server, lambda: None, "requires an encrypted connection", tries),
            "PLAIN": measure_plain(server, tries),
            "wrong server key": measure_refusal(
                server,
                lambda: CurveCredentials(generate_key_pair().public, generate_key_pair()),
                "is not the one of the connection string",
                tries,
            ),
            "unknown key": measure_refusal(
                server,
                lambda: CurveCredentials(server.server_keys.public, generate_key_pair()),
                "does not know this computer's key yet",
                tries,
            ),
            "key revoked while connected, next request": measure_revoked(server, tries),
            "no authenticator": without_authenticator(options.folder / "cut", tries),
            "empty domain": with_empty_zap_domain(options.folder / "empty"),
            "another user's job": compare_foreign_and_unknown_jobs(server, options.pairs),
        }
    finally:
        server.end()
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
