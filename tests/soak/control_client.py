# SPDX-License-Identifier: GPL-3.0-or-later
"""A client process that measures request latency while another client attacks the server."""

from __future__ import annotations

import json
import select
import statistics
import subprocess
import sys
import time
from typing import Any

from dreamwright.shared.client import Client
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.credentials import KeyPair
from dreamwright.shared.errors import RequestError
from dreamwright.shared.messages import ListJobs

EVERY_S = 0.02  # least time between two requests


def send_requests(address: str, credentials: CurveCredentials | None) -> None:
    """Send requests until stdin ends. For each line of stdin, print the latencies and faults since the last one."""
    client = Client(address, credentials=credentials)
    client.connect()
    took: list[float] = []
    faults: list[str] = []
    started, waiting = 0.0, False

    def answered(reply: Any) -> None:
        nonlocal waiting
        waiting = False
        if isinstance(reply, RequestError):
            faults.append(f"{reply.code}: {reply.message}")
        took.append(time.perf_counter() - started)

    while True:
        for event in client.tick():
            if getattr(event, "state", None) in (
                ConnectionState.LOST,
                ConnectionState.UNAUTHORIZED,
                ConnectionState.INCOMPATIBLE,
            ):
                faults.append(event.reason)
        if client.state is ConnectionState.ONLINE and not waiting and time.perf_counter() - started > EVERY_S:
            started, waiting = time.perf_counter(), True
            client.request(ListJobs(), answered)
        if select.select([sys.stdin], [], [], 0.0005)[0]:
            if not sys.stdin.readline():
                break
            print(json.dumps([took, faults]), flush=True)
            took, faults = [], []
    client.close()


class ControlClient:
    """The client process."""

    def __init__(self, address: str, credentials: CurveCredentials | None) -> None:
        keys = (
            []
            if credentials is None
            else [credentials.server.hex(), credentials.own.public.hex(), credentials.own.secret.hex()]
        )
        command = [sys.executable, "-m", "tests.soak.control_client", address, *keys]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def since(self) -> dict[str, Any]:
        """Replies, median, 99th percentile and worst latency in ms, and faults since the last call."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        took, faults = json.loads(self._process.stdout.readline())
        millis = sorted(1000 * seconds for seconds in took) or [0.0]
        return {
            "answers": len(took),
            "median_ms": round(statistics.median(millis), 1),
            "p99_ms": round(millis[int(0.99 * (len(millis) - 1))], 1),
            "worst_ms": round(millis[-1], 1),
            "faults": faults,
        }

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


if __name__ == "__main__":
    given = [bytes.fromhex(key) for key in sys.argv[2:]]
    send_requests(sys.argv[1], CurveCredentials(given[0], KeyPair(given[1], given[2])) if given else None)
