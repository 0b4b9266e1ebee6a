# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads of a large mesh over CURVE: uninterrupted, cut at 10, 50 and 90%, and with the file replaced meanwhile.

    python -m tests.soak.cut_downloads --megabytes 1000 --folder runs/cut_downloads

Measures the rate, the bytes sent beyond the file size after each cut, the growth of the server's memory, and the
latency of another client's requests.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from dreamwright.shared import limits
from dreamwright.shared.client import Client
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.errors import RequestError
from dreamwright.shared.messages import JobSummary, ListJobs, SubmitJob
from dreamwright.shared.transfer import Download
from tests.soak.command_line import print_results, soak_parser
from tests.soak.flaky_tcp_proxy import FlakyTcpProxy
from tests.soak.observed_server import ObservedServer, ask, online
from tests.soak.ticking_server import write_mesh

IN_FLIGHT = limits.CHUNKS_IN_FLIGHT * limits.CHUNK_BYTES
GROWTH_MB = 20.0  # allowed growth of the server's memory; a chunk in flight takes 2.5 MB (read, packed and encrypted)


class DownloadClient:
    """One client that downloads through a proxy, and its measurements."""

    def __init__(self, server: ObservedServer, other: Client, job: JobSummary) -> None:
        self.server, self.other, self.job = server, other, job
        self.proxy = FlakyTcpProxy(server.address)
        self.client = Client(self.proxy.address, credentials=CurveCredentials(server.server_key, server.pairs["anna"]))
        self.client.connect()
        online(self.client)
        self.results: list[Any] = []
        self.most_in_flight = 0
        self.rss = [server.stats().rss_mb]
        self.request_ms: list[float] = []
        self._requested_at: float | None = None
        self._sampled = 0.0

    def run(self, cuts: tuple[float, ...] = (), at_half: Any = None, limit_s: float = 600.0) -> dict[str, Any]:
        """Download the mesh, with connection cuts at the given shares. `at_half` is called when half has arrived."""
        sent = self.proxy.down_bytes
        download = Download(self.client, self.job.job, "mesh", self.job.mesh_bytes, self.results.append)
        self.results.clear()
        started = time.monotonic()
        download.start()
        left, was_online, again_s, lost_at, passed = list(cuts), True, [], 0.0, 0
        while not self.results:
            if time.monotonic() > started + limit_s:
                raise TimeoutError(f"{download.share:.0%} in {limit_s} s; {self.client.reason}")
            self.client.tick()
            share = download._hashed / max(1, download.size)  # the contiguous part; `share` counts all chunks
            self.most_in_flight = max(self.most_in_flight, download._in_flight)
            if left and not lost_at and share >= left[0]:
                left.pop(0)
                self.proxy.cut()
                lost_at, passed = time.monotonic(), self.proxy.down_bytes
            if lost_at and self.proxy.down_bytes > passed + limits.CHUNK_BYTES:
                again_s.append(round(time.monotonic() - lost_at, 2))
                lost_at = 0.0
            if at_half is not None and share >= 0.5:
                at_half()
                at_half = None
            is_online = self.client.state is ConnectionState.ONLINE
            if is_online and not was_online:
                download.resume()  # as the add-on's session does
            was_online = is_online
            self._sample()
        spent = time.monotonic() - started
        result = self.results[0]
        figures: dict[str, Any] = {
            "s": round(spent, 2),
            "MB/s": round(self.job.mesh_bytes / 1e6 / spent, 1),
            "cuts": len(cuts),
        }
        figures["MB sent beyond the file size"] = round((self.proxy.down_bytes - sent - self.job.mesh_bytes) / 1e6, 2)
        figures["resumed after s"] = again_s
        figures["result"] = (
            str(result)
            if isinstance(result, RequestError)
            else hashlib.sha256(result).hexdigest() == self.job.mesh_sha256
        )
        return figures

    def _sample(self) -> None:
        self.other.tick()
        now = time.monotonic()
        if now - self._sampled > 0.1:
            self._sampled = now
            self.rss.append(self.server.stats().rss_mb)
            if self._requested_at is None:
                self._requested_at = now
                self.other.request(ListJobs(0, 1), self._answered)

    def _answered(self, reply: Any) -> None:
        self.request_ms.append(1000 * (time.monotonic() - self._requested_at))
        self._requested_at = None

    def close(self) -> None:
        self.client.close()
        self.proxy.close()


def finished_job(client: Client, ticket: str, limit_s: float = 300.0) -> JobSummary:
    """Submit a job and wait until it has a mesh."""
    job = ask(client, SubmitJob(ticket, "a red mushroom", "", "starter", "draft", 0, {"run.steps": 10})).job.job
    end = time.monotonic() + limit_s
    while True:
        found = next(one for one in ask(client, ListJobs()).jobs if one.job == job)
        if found.state == "succeeded":
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"the job has no mesh after {limit_s} s: {found}")
        time.sleep(0.1)


def replace(mesh: Path, size: int, seed: int) -> None:
    """Replace the mesh file atomically by another one."""
    write_mesh(mesh.with_suffix(".new"), size, seed)
    mesh.with_suffix(".new").replace(mesh)


def soak(folder: Path, size: int, cuts: tuple[float, ...] = (0.1, 0.5, 0.9)) -> tuple[dict[str, Any], list[str]]:
    """Run all downloads with a mesh of `size` bytes."""
    os.environ["MESH_BYTES"] = str(size)
    faults: list[str] = []
    server = ObservedServer(folder, ["anna", "bert"], module="tests.soak.ticking_server").start()
    other: Client | None = None
    downloads: DownloadClient | None = None
    try:
        other = online(server.client("bert"))
        owner = online(server.client("anna"))
        job = finished_job(owner, "one")
        mesh = server.state / "jobs" / job.job / "mesh.dwm"
        owner.close()
        downloads = DownloadClient(server, other, job)
        figures: dict[str, Any] = {"mesh MB": job.mesh_bytes / 1e6}
        figures["uninterrupted"] = downloads.run()
        figures[f"cut at {', '.join(f'{cut:.0%}' for cut in cuts)}"] = cut = downloads.run(cuts)
        for name, run, most in (("uninterrupted", figures["uninterrupted"], 0), ("cut", cut, len(cuts))):
            if run["result"] is not True:
                faults.append(f"{name}: {run['result']}")
            allowed = (
                0.02 * size + (most + 1) * 1.5 * IN_FLIGHT
            )  # 2% for envelopes and encryption; 1.5 times the chunks in flight for each cut
            if run["MB sent beyond the file size"] * 1e6 > allowed:
                faults.append(f"{name}: {run['MB sent beyond the file size']} MB were sent beyond the file size")
        figures["replaced by another of the same size"] = downloads.run(at_half=lambda: replace(mesh, size, 1))
        figures["replaced by a shorter one"] = downloads.run(at_half=lambda: replace(mesh, size // 2 + 1, 2))
        for name in ("replaced by another of the same size", "replaced by a shorter one"):
            if "try again" not in str(figures[name]["result"]):
                faults.append(f"{name}: {figures[name]['result']}")
        figures["chunks in flight, max"] = downloads.most_in_flight
        figures["MB in flight, max"] = downloads.most_in_flight * limits.CHUNK_BYTES / 1e6
        figures["server rss_mb before, max"] = [downloads.rss[0], max(downloads.rss)]
        spent = sorted(downloads.request_ms)
        figures["request ms of another client, median and p99"] = [
            round(statistics.median(spent), 1),
            round(spent[int(0.99 * (len(spent) - 1))], 1),
        ]
        if downloads.most_in_flight > limits.CHUNKS_IN_FLIGHT:
            faults.append(f"{downloads.most_in_flight} chunks in flight; the limit is {limits.CHUNKS_IN_FLIGHT}")
        if max(downloads.rss) - downloads.rss[0] > GROWTH_MB:
            faults.append(
                f"server memory grew by {max(downloads.rss) - downloads.rss[0]:.1f} MB; the limit is {GROWTH_MB} MB"
            )
        faults += server.faults()
    finally:
        if downloads is not None:
            downloads.close()
        if other is not None:
            other.close()
        server.stop()
    return figures, faults


def main() -> int:
    parser = soak_parser(__doc__)
    parser.add_argument(
        "--megabytes", type=int, default=1000, help=f"size of the mesh; at most {limits.FILE_BYTES // 10**6}"
    )
    options = parser.parse_args()
    figures, faults = soak(options.folder, options.megabytes * 10**6)
    return print_results(figures, faults)


if __name__ == "__main__":
    sys.exit(main())
