# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory growth of the server under messages of 600 and more frames, from unauthorized and authorized clients.

python -m tests.soak.many_frames --folder runs/many_frames
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import zmq

from dreamwright.shared import limits
from dreamwright.shared.codec import pack, unpack
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.credentials import generate_key_pair
from dreamwright.shared.messages import ListJobs
from tests.soak.command_line import soak_parser
from tests.soak.control_client import ControlClient
from tests.soak.fast_server_process import FastServerProcess


def send_frames(
    server: FastServerProcess, connection: zmq.Socket, frame: bytes, count: int, seconds: float
) -> tuple[int, float]:
    """Send frames until the server disconnects; returns their number and the server's peak memory growth, MiB."""
    monitor = connection.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    before, most, sent, end = server.rss_mb(), 0.0, 0, time.monotonic() + seconds
    is_sampling = True

    def sample() -> None:
        nonlocal most
        while is_sampling:
            most = max(most, server.rss_mb() - before)
            time.sleep(0.002)

    sampler = threading.Thread(target=sample)
    sampler.start()
    while sent < count and time.monotonic() < end and not monitor.poll(0):
        connection.send(
            frame, zmq.SNDMORE if sent < count - 1 else 0
        )  # libzmq sends a message only when its last frame is queued
        sent += 1
    while not monitor.poll(20) and not connection.poll(0) and time.monotonic() < end:
        pass
    is_sampling = False
    sampler.join()
    connection.disable_monitor()
    monitor.close(0)
    return sent, most


def send_message(
    server: FastServerProcess, credentials: CurveCredentials | None, frame: bytes, count: int, seconds: float = 8.0
) -> dict[str, Any]:
    """Send one message of many frames; returns the reply and the growth of the server's memory."""
    before = server.rss_mb()
    connection = server.socket(credentials)
    sent, most = send_frames(server, connection, frame, count, seconds)
    answer = unpack(connection.recv(), limits.REPLY_BYTES)[1] if connection.poll(1000) else None
    connection.close(0)
    time.sleep(0.5)
    again = server.socket(credentials)
    again.send(pack(ListJobs(), 1))
    is_working = bool(again.poll(5000))
    again.close(0)
    return {
        "frame bytes": len(frame),
        "frames sent": sent,
        "of": count,
        "mb sent": round(sent * len(frame) / 2**20, 1),
        "server rss_mb peak growth": round(most, 1),
        "server rss_mb growth after": round(server.rss_mb() - before, 1),
        "answer": None if answer is None else f"{answer.code}: {answer.message}",
        "a new connection of the same client works": is_working,
    }


def main() -> int:
    parser = soak_parser(__doc__)
    parser.add_argument("--no-limit", action="store_true", help="turn off the server's limit on incoming data")
    options = parser.parse_args()
    folder = options.folder
    figures: dict[str, Any] = {}
    for mode, encrypt in (("encrypted", True), ("unencrypted", False)):
        server = FastServerProcess(folder / mode, encrypt, not options.no_limit)
        control = ControlClient(server.address, server.authorized_client("anna"))
        try:
            while not control.since()["answers"]:
                time.sleep(0.5)
            credentials = server.authorized_client("mallory")
            figures_of_mode = figures[f"{mode} server"] = {"server rss_mb": round(server.rss_mb(), 1)}
            if encrypt:
                figures_of_mode["600 frames of 1 MB without a key"] = send_message(server, None, bytes(10**6), 600)
                figures_of_mode["1000 frames of 60 kB with an unknown key"] = send_message(
                    server, CurveCredentials(server.server_keys.public, generate_key_pair()), bytes(60_000), 1000
                )
            figures_of_mode["600 frames of 1 MB"] = send_message(server, credentials, bytes(10**6), 600)
            figures_of_mode["600 frames of 100 bytes"] = send_message(server, credentials, bytes(100), 600)
            figures_of_mode["200 frames of 60 kB"] = send_message(server, credentials, bytes(60_000), 200)
            figures_of_mode["6000 frames of 60 kB"] = send_message(server, credentials, bytes(60_000), 6000, 60.0)
            figures_of_mode["400,000 empty frames"] = send_message(server, credentials, b"", 400_000, 60.0)
            figures_of_mode["control client"] = control.since()
            figures_of_mode["server process alive"] = server.is_alive
        finally:
            control.end()
            server.end()
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
