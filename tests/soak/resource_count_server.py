# SPDX-License-Identifier: GPL-3.0-or-later
"""An encrypted server that prints its connection and subscriber counts.

python -m tests.soak.resource_count_server STATE ADDRESS

The workers are those of ticking_server. Each change of a count prints one line of JSON.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from dreamwright.backend.server import app
from tests.soak.ticking_server import TickingRunner

ESTABLISHED = "01"  # in /proc/net/tcp


def connections(port: int) -> int:
    """Number of established TCP connections to a port of this network namespace."""
    lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    return sum(1 for line in lines if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == ESTABLISHED)


def resource_counts(server: app.Server, port: int) -> dict[str, Any]:
    """Counts of what the server holds for its clients."""
    return {
        "subscribers": len(server.publisher),
        "previews in flight": server.publisher.previews.unacknowledged(),
        "connections": connections(port),
    }


def main() -> None:
    """Serve until SIGTERM."""
    state, address = Path(sys.argv[1]), sys.argv[2]
    app.LocalRunner = TickingRunner
    server = app.Server(address, state, ("cpu",), encrypt=True)
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    port, printed = int(server.address.rpartition(":")[2]), {}
    try:
        while not stopping:
            server.step(0.05)
            now = resource_counts(server, port)
            if now != printed:
                printed = now
                print(json.dumps({"at": time.monotonic(), **printed}), flush=True)
    finally:
        server.close()


if __name__ == "__main__":
    main()
