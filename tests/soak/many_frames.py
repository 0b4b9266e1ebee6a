# SPDX-License-Identifier: GPL-3.0-or-later
"""What a message of 600 frames does to the server, and far larger ones, from a stranger and from an artist who is let
in.

python -m tests.soak.many_frames --folder runs/many_frames
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import zmq

from dreamwright.shared import limits
from dreamwright.shared.codec import pack, unpack
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.credentials import generate_key_pair
from dreamwright.shared.messages import ListJobs
from tests.soak.control_client import ControlClient
from tests.soak.fast_server_process import FastServerProcess


def pour(server: FastServerProcess, own: zmq.Socket, frame: bytes, count: int, seconds: float) -> tuple[int, float]:
    """Frames of a message put on their way, and the server's most memory meanwhile, MiB above before; until it hangs
    up.
    """
    watch = own.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    before, most, sent, end = server.rss_mb(), 0.0, 0, time.monotonic() + seconds
    looking = True

    def look() -> None:
        nonlocal most
        while looking:
            most = max(most, server.rss_mb() - before)
            time.sleep(0.002)

    eye = threading.Thread(target=look)
    eye.start()
    while sent < count and time.monotonic() < end and not watch.poll(0):
        own.send(frame, zmq.SNDMORE if sent < count - 1 else 0)  # libzmq itself sends nothing before the last
        sent += 1
    while not watch.poll(20) and not own.poll(0) and time.monotonic() < end:
        pass
    looking = False
    eye.join()
    own.disable_monitor()
    watch.close(0)
    return sent, most


def attack(
    server: FastServerProcess, lock: CurveCredentials | None, frame: bytes, count: int, seconds: float = 8.0
) -> dict[str, Any]:
    """One message of many frames; what was answered, and what it cost the server."""
    before = server.rss_mb()
    own = server.socket(lock)
    sent, most = pour(server, own, frame, count, seconds)
    answer = unpack(own.recv(), limits.REPLY_BYTES)[1] if own.poll(1000) else None
    own.close(0)
    time.sleep(0.5)
    again = server.socket(lock)
    again.send(pack(ListJobs(), 1))
    served = bool(again.poll(5000))
    again.close(0)
    return {
        "frames of": len(frame),
        "frames sent": sent,
        "of": count,
        "mb sent": round(sent * len(frame) / 2**20, 1),
        "server rss_mb grew by at most": round(most, 1),
        "and after it by": round(server.rss_mb() - before, 1),
        "answer": None if answer is None else f"{answer.code}: {answer.message}",
        "who did it is served afterwards on a new connection": served,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--uncut", action="store_true", help="with a server that hangs up on nobody")
    options = parser.parse_args()
    folder = options.folder
    figures: dict[str, Any] = {}
    for door, encrypt in (("encrypted", True), ("open", False)):
        server = FastServerProcess(folder / door, encrypt, not options.uncut)
        beside = ControlClient(server.address, server.authorized_client("anna"))
        try:
            while not beside.since()["answers"]:
                time.sleep(0.5)
            lock = server.authorized_client("mallory")
            told = figures[f"{door} door"] = {"server rss_mb": round(server.rss_mb(), 1)}
            if encrypt:
                told["a stranger's 600 frames of 1 MB"] = attack(server, None, bytes(10**6), 600)
                told["a stranger's 1000 frames of 60 kB (unknown key)"] = attack(
                    server, CurveCredentials(server.pair.public, generate_key_pair()), bytes(60_000), 1000
                )
            told["600 frames of 1 MB"] = attack(server, lock, bytes(10**6), 600)
            told["600 frames of 100 bytes"] = attack(server, lock, bytes(100), 600)
            told["200 frames of 60 kB"] = attack(server, lock, bytes(60_000), 200)
            told["6000 frames of 60 kB"] = attack(server, lock, bytes(60_000), 6000, 60.0)
            told["400,000 empty frames"] = attack(server, lock, b"", 400_000, 60.0)
            told["the artist beside"] = beside.since()
            told["server process still the same"] = server.is_alive
        finally:
            beside.end()
            server.end()
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
