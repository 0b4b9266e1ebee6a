# SPDX-License-Identifier: GPL-3.0-or-later
"""A big mesh fetched over CURVE: whole, cut at 10, 50 and 90 % and gone on with, and replaced on the server meanwhile.

    python -m tests.soak.cut_downloads --megabytes 1000 --folder runs/cut_downloads

How fast, how much more than the file goes over the wire after a cut, how the server's memory grows, and how long
another artist's request takes meanwhile.
"""

from __future__ import annotations

import argparse
import hashlib
import json
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
from tests.soak.flaky_tcp_proxy import FlakyTcpProxy
from tests.soak.observed_server import ObservedServer, ask, online
from tests.soak.ticking_server import write_mesh

IN_FLIGHT = limits.CHUNKS_IN_FLIGHT * limits.CHUNK_BYTES
GROWTH_MB = 20.0  # of the server's memory: the pieces in flight, read, packed and encrypted, are 2.5 MB each


class Fetching:
    """One download over a cable, and what was seen of it."""

    def __init__(self, served: ObservedServer, other: Client, job: JobSummary) -> None:
        self.served, self.other, self.job = served, other, job
        self.cable = FlakyTcpProxy(served.address)
        self.client = Client(self.cable.address, credentials=CurveCredentials(served.server_key, served.pairs["anna"]))
        self.client.connect()
        online(self.client)
        self.results: list[Any] = []
        self.most_in_flight = 0
        self.rss = [served.vitals().rss_mb]
        self.request_ms: list[float] = []
        self._asked: float | None = None
        self._sampled = 0.0

    def run(self, cuts: tuple[float, ...] = (), meanwhile: Any = None, limit_s: float = 600.0) -> dict[str, Any]:
        """`meanwhile` is done when half has arrived."""
        sent = self.cable.down_bytes
        download = Download(self.client, self.job.job, "mesh", self.job.mesh_bytes, self.results.append)
        self.results.clear()
        begun = time.monotonic()
        download.start()
        left, was_online, again_s, lost_at, passed = list(cuts), True, [], 0.0, 0
        while not self.results:
            if time.monotonic() > begun + limit_s:
                raise TimeoutError(f"{download.share:.0%} in {limit_s} s; {self.client.reason}")
            self.client.tick()
            share = download._hashed / max(1, download.size)  # without a hole; `share` adds up all pieces
            self.most_in_flight = max(self.most_in_flight, download._in_flight)
            if left and not lost_at and share >= left[0]:
                left.pop(0)
                self.cable.cut()
                lost_at, passed = time.monotonic(), self.cable.down_bytes
            if lost_at and self.cable.down_bytes > passed + limits.CHUNK_BYTES:
                again_s.append(round(time.monotonic() - lost_at, 2))
                lost_at = 0.0
            if meanwhile is not None and share >= 0.5:
                meanwhile()
                meanwhile = None
            is_online = self.client.state is ConnectionState.ONLINE
            if is_online and not was_online:
                download.resume()  # as the add-on's session does
            was_online = is_online
            self._look()
        spent = time.monotonic() - begun
        result = self.results[0]
        told: dict[str, Any] = {
            "s": round(spent, 2),
            "MB/s": round(self.job.mesh_bytes / 1e6 / spent, 1),
            "cuts": len(cuts),
        }
        told["MB over the wire beyond the file"] = round((self.cable.down_bytes - sent - self.job.mesh_bytes) / 1e6, 2)
        told["went on after s"] = again_s
        told["ends"] = (
            str(result)
            if isinstance(result, RequestError)
            else hashlib.sha256(result).hexdigest() == self.job.mesh_sha256
        )
        return told

    def _look(self) -> None:
        self.other.tick()
        now = time.monotonic()
        if now - self._sampled > 0.1:
            self._sampled = now
            self.rss.append(self.served.vitals().rss_mb)
            if self._asked is None:
                self._asked = now
                self.other.request(ListJobs(0, 1), self._answered)

    def _answered(self, reply: Any) -> None:
        self.request_ms.append(1000 * (time.monotonic() - self._asked))
        self._asked = None

    def close(self) -> None:
        self.client.close()
        self.cable.close()


def made(client: Client, ticket: str, limit_s: float = 300.0) -> JobSummary:
    """A job that has ended in its mesh."""
    job = ask(client, SubmitJob(ticket, "a red mushroom", "", "starter", "draft", 0, {"run.steps": 10})).job.job
    end = time.monotonic() + limit_s
    while True:
        found = next(one for one in ask(client, ListJobs()).jobs if one.job == job)
        if found.state == "succeeded":
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"no mesh: {found}")
        time.sleep(0.1)


def replace(mesh: Path, size: int, seed: int) -> None:
    """Another file in its place, at once."""
    write_mesh(mesh.with_suffix(".new"), size, seed)
    mesh.with_suffix(".new").replace(mesh)


def soak(folder: Path, size: int, cuts: tuple[float, ...] = (0.1, 0.5, 0.9)) -> tuple[dict[str, Any], list[str]]:
    """All of it, with a mesh of so many bytes."""
    os.environ["MESH_BYTES"] = str(size)
    faults: list[str] = []
    served = ObservedServer(folder, ["anna", "bert"], module="tests.soak.ticking_server").start()
    other: Client | None = None
    fetching: Fetching | None = None
    try:
        other = online(served.client("bert"))
        anna = online(served.client("anna"))
        job = made(anna, "one")
        mesh = served.state / "jobs" / job.job / "mesh.dwm"
        anna.close()
        fetching = Fetching(served, other, job)
        told: dict[str, Any] = {"mesh MB": job.mesh_bytes / 1e6}
        told["uncut"] = fetching.run()
        told[f"cut at {', '.join(f'{cut:.0%}' for cut in cuts)}"] = cut = fetching.run(cuts)
        for name, run, most in (("uncut", told["uncut"], 0), ("cut", cut, len(cuts))):
            if run["ends"] is not True:
                faults.append(f"{name}: {run['ends']}")
            allowed = (
                0.02 * size + (most + 1) * 1.5 * IN_FLIGHT
            )  # envelopes and encryption; what was on its way at each cut
            if run["MB over the wire beyond the file"] * 1e6 > allowed:
                faults.append(
                    f"{name}: {run['MB over the wire beyond the file']} MB more than the file went over the wire"
                )
        told["replaced by another of the same size"] = fetching.run(meanwhile=lambda: replace(mesh, size, 1))
        told["replaced by a shorter one"] = fetching.run(meanwhile=lambda: replace(mesh, size // 2 + 1, 2))
        for name in ("replaced by another of the same size", "replaced by a shorter one"):
            if "fetch it again" not in str(told[name]["ends"]):
                faults.append(f"{name}: {told[name]['ends']}")
        told["pieces in flight, most"] = fetching.most_in_flight
        told["MB in flight, most"] = fetching.most_in_flight * limits.CHUNK_BYTES / 1e6
        told["server rss_mb before, most"] = [fetching.rss[0], max(fetching.rss)]
        spent = sorted(fetching.request_ms)
        told["another's request ms, median and p99"] = [
            round(statistics.median(spent), 1),
            round(spent[int(0.99 * (len(spent) - 1))], 1),
        ]
        if fetching.most_in_flight > limits.CHUNKS_IN_FLIGHT:
            faults.append(f"{fetching.most_in_flight} pieces in flight")
        if max(fetching.rss) - fetching.rss[0] > GROWTH_MB:
            faults.append(f"the server grew by {max(fetching.rss) - fetching.rss[0]:.1f} MB; allowed are {GROWTH_MB}")
        faults += served.faults()
    finally:
        if fetching is not None:
            fetching.close()
        if other is not None:
            other.close()
        served.stop()
    return told, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new or empty folder")
    parser.add_argument(
        "--megabytes", type=int, default=1000, help=f"of the mesh; at most {limits.FILE_BYTES // 10**6}"
    )
    options = parser.parse_args()
    told, faults = soak(options.folder, options.megabytes * 10**6)
    print(json.dumps(told, indent=1))
    print(f"{len(faults)} faults", *faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
