# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that tells what it holds for its clients: python -m tests.soak.watched_door STATE ADDRESS.

The encrypted front door as it is, in this process, with workers that tick. A line of JSON whenever a number changes.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from dreamwright.backend.server import app
from tests.soak.ticking_server import TickingForeman

ESTABLISHED = "01"  # in /proc/net/tcp


def connections(port: int) -> int:
    """Established ones of this network's port."""
    lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    return sum(1 for line in lines if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == ESTABLISHED)


def held(door: app.Server, port: int) -> dict[str, Any]:
    """What it keeps of those who are there."""
    subscribers = door.publisher._subscribers.values()
    return {
        "subscribers": len(door.publisher),
        "previews on the way": sum(one.on_the_way for one in subscribers),
        "connections": connections(port),
    }


def main() -> None:
    """Serve until SIGTERM."""
    state, address = Path(sys.argv[1]), sys.argv[2]
    app.LocalRunner = TickingForeman
    door = app.Server(address, state, ("cpu",), encrypt=True)
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    port, told = int(door.address.rpartition(":")[2]), {}
    try:
        while not stopping:
            door.step(0.05)
            now = held(door, port)
            if now != told:
                told = now
                print(json.dumps({"at": time.monotonic(), **told}), flush=True)
    finally:
        door.close()


if __name__ == "__main__":
    main()
