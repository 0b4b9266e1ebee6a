# SPDX-License-Identifier: GPL-3.0-or-later
"""Five hundred pages of 45 sessions at once, of which some never read, while another client uses the server.

    python -m tests.soak.web_pages --folder runs/web_pages

The server has simulated workers and two jobs that make four steps and a preview a second. Each page asks for its stream
of events: as many as the limits allow are open, the others get one sentence. Measured are the requests of a ZeroMQ
client without and with the pages, memory and processor time of both processes, and the time after a kill of the web
process until a page of an old session is open again.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import selectors
import signal
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from dreamwright.backend.server.web.feeds import MOST_STREAMS, STREAMS_PER_SESSION
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.messages import GetStatus
from tests.soak.command_line import print_results, soak_parser
from tests.testing.web_server import HttpUser, WebServer, web_server

USERS = ("ada", "bob", "eve")
REQUESTS = 300  # of the ZeroMQ client in one measurement
READING_SHARE = 0.75  # of the open pages; the others never read
Page = tuple[http.client.HTTPConnection, http.client.HTTPResponse]


def request_times(web: WebServer) -> dict[str, float]:
    """Median and 99th percentile of a ZeroMQ client's requests for the status, milliseconds."""
    lock = CurveCredentials(KeyFolder(web.state).pair().public, web.pairs["ada"])
    times = []
    with web.server.connected_client(lock) as client:
        for _ in range(REQUESTS):
            answers: list[Any] = []
            begun = time.perf_counter()
            client.request(GetStatus(), answers.append)
            while not answers:
                client.tick()
                time.sleep(0.0005)
            times.append(1000.0 * (time.perf_counter() - begun))
    return {"median ms": round(statistics.median(times), 1), "p99 ms": round(sorted(times)[int(0.99 * len(times))], 1)}


def open_pages(users: list[HttpUser], count: int) -> tuple[list[Page], list[str]]:
    """Ask for so many streams, the sessions in turn: the open ones, and the sentences of the others."""
    opened, refused = [], []
    for index in range(count):
        user = users[index % len(users)]
        connection = user.connect()
        connection.request("GET", "/api/events", headers=user.headers())
        response = connection.getresponse()
        if response.status == 200:
            opened.append((connection, response))
        else:
            refused.append(f"{response.status}: {json.loads(response.read())['message']}")
            connection.close()
    return opened, refused


class Reader:
    """Reads what arrives at some pages, in a thread."""

    def __init__(self, pages: list[Page]) -> None:
        self.received = 0
        self._stopping = threading.Event()
        self._selector = selectors.DefaultSelector()
        for connection, _ in pages:
            self._selector.register(connection.sock, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._stopping.is_set():
            for key, _ in self._selector.select(0.2):
                self.received += len(key.fileobj.recv(65536))

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._selector.close()


def web_process(web: WebServer) -> int:
    return int(re.findall(r"web process started worker=(\d+)", web.server.output.read_text())[-1])


def load_of(processes: dict[str, int], seconds: float) -> dict[str, dict[str, float]]:
    """Memory, and processor time over some seconds, of processes by name."""
    found = {name: psutil.Process(number) for name, number in processes.items()}
    for process in found.values():
        process.cpu_percent()
    time.sleep(seconds)
    return {
        name: {"MB": round(process.memory_info().rss / 1e6, 1), "percent of a core": process.cpu_percent()}
        for name, process in found.items()
    }


def soak(folder: Path, pages: int, sessions: int, seconds: float) -> tuple[dict[str, Any], list[str]]:
    """Run everything, with all pages open for `seconds`; figures and faults."""
    figures: dict[str, Any] = {}
    faults: list[str] = []
    with web_server(folder) as web:
        for user in USERS[:2]:
            web.submit(user, "running")
        users = [web.signed_in(USERS[index % len(USERS)]) for index in range(sessions)]
        processes = {"server": web.server.process.pid, "web process": web_process(web)}
        figures["without pages"] = {"requests": request_times(web), **load_of(processes, seconds / 4)}
        opened, refused = open_pages(users, pages)
        reader = Reader(opened[: int(READING_SHARE * len(opened))])
        figures["pages"] = {
            "asked for": pages,
            "open": len(opened),
            "refused": len(refused),
            "by": sorted(set(refused)),
        }
        expected = min(pages, MOST_STREAMS, sessions * STREAMS_PER_SESSION)
        if len(opened) != expected:
            faults.append(f"{len(opened)} pages are open; expected are {expected}")
        figures["with pages"] = {"requests": request_times(web), **load_of(processes, seconds)}
        figures["with pages"]["kB a second of a reading page"] = round(
            reader.received / 1000 / seconds / max(1, int(READING_SHARE * len(opened))), 1
        )
        reader.stop()
        for connection, response in opened:
            response.close()
            connection.close()
        os.kill(processes["web process"], signal.SIGKILL)
        begun = time.monotonic()
        web.server.wait_until(lambda: web_process(web) != processes["web process"])
        with users[0].events() as events:
            next(events)
        figures["after a kill of the web process"] = {"a page is open again, s": round(time.monotonic() - begun, 1)}
        lines = web.server.output.read_text().splitlines()
        faults += [line for line in lines if " ERROR " in line or " CRITICAL " in line]
        faults += [line for line in (web.state / "logs" / "web.log").read_text().splitlines() if " ERROR " in line]
    return figures, faults


def main() -> int:
    parser = soak_parser(__doc__)
    parser.add_argument("--pages", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=45, help="at most 20 of each of the three users")
    parser.add_argument("--seconds", type=float, default=20.0, help="with all pages open")
    options = parser.parse_args()
    return print_results(*soak(options.folder, options.pages, options.sessions, options.seconds))


if __name__ == "__main__":
    sys.exit(main())
