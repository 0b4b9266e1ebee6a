# SPDX-License-Identifier: GPL-3.0-or-later
"""Several clients in one process that send requests at random: python -m tests.soak.load_clients FOLDER NUMBER.

stdin has one line of JSON with the server, keys and settings. Each action is written to a journal first, so a process
that is killed and restarted continues with the jobs that it submitted before.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from pathlib import Path

from tests.soak.random_client import Journal, RandomClient

STALL_S = 1.0  # between two loops of this process; longer means that it was stopped


def main() -> None:
    """Send requests until SIGTERM; then wait until all jobs have ended and write that to the journal."""
    draining: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: draining.append(number))
    print("ready", flush=True)
    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    setup = json.loads(sys.stdin.readline())
    path = folder / f"clients-{number}.jsonl"
    past = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []
    journal = Journal(path)
    journal.write("starts", number=number)
    rng = random.Random(f"{setup['seed']}/{number}/{len(past)}")
    clients = []
    for name, user in setup["clients"]:
        clients.append(
            RandomClient(
                setup,
                name,
                user,
                journal,
                [event for event in past if event.get("ticket", "").startswith(f"{name}-")],
                rng,
            )
        )
    last = time.monotonic()
    while not (draining and all(client.is_drained for client in clients)):
        now = time.monotonic()
        for client in clients:
            if now - last > STALL_S:
                client.stopped_until = now
            client.step(bool(draining))
        last = now
        time.sleep(0.01)
    for client in clients:
        client.client.close()
    journal.write("ends", number=number)


if __name__ == "__main__":
    main()
