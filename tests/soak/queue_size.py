# SPDX-License-Identifier: GPL-3.0-or-later
"""Time of each decision of the server with a long queue on many devices, by simulation: no workers and no sockets.

    python -m tests.soak.queue_size --folder DIR --jobs 10000 --users 200 --devices 80

Submits, assignments, ends, cancellations and steps without any of them are timed one by one. The disk's own time (one
fsync for each change) is measured beside them, since it is most of what is left.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.workers.worker_protocol import JobFinished
from dreamwright.shared.messages import CancelJob, SubmitJob
from tests.soak.command_line import print_results, soak_parser
from tests.testing.in_memory_server import InMemoryServer

LARGEST_QUEUE = 10_000


class Simulation:
    """A server with `jobs` queued jobs of `users` users, as many devices as asked for, and no subscriber."""

    def __init__(self, folder: Path, jobs: int, users: int, devices: int) -> None:
        policy = Policy(jobs_per_user=LARGEST_QUEUE, jobs_total=LARGEST_QUEUE, ended_per_user=100_000)
        self.server = InMemoryServer(folder, tuple(f"node{n // 8}/{n % 8}" for n in range(devices)), policy)
        self.users, self.rng, self.count = users, random.Random(1), 0
        self.took: dict[str, list[tuple[float, float]]] = {}  # (wall, CPU) seconds
        self.server.disk._real.execute("PRAGMA synchronous=OFF")  # while the queue is filled
        free, self.server.runner.free = self.server.runner.free, []
        for _ in range(jobs):
            self.fill()
        self.server.store._renumber()
        self.server.runner.free = free
        self.server.disk._real.execute("PRAGMA synchronous=FULL")

    def request(self) -> SubmitJob:
        self.count += 1
        return SubmitJob(f"t{self.count}", "a red mushroom", "", "starter", "draft", self.count, {})

    def fill(self) -> None:
        """Add a queued job past the service, which would number the whole queue each time."""
        store, record = self.server.store, None
        committed, store._committed = store._committed, lambda record: store._cache(record) or record
        try:
            record = store.add(f"user{self.count % self.users}", self.request(), 400)
        finally:
            store._committed = committed
        assert record is not None

    def time(self, what: str, act: Any, *given: Any) -> Any:
        started, cpu = time.perf_counter(), time.process_time()
        result = act(*given)
        self.took.setdefault(what, []).append((time.perf_counter() - started, time.process_time() - cpu))
        return result

    def run(self, rounds: int) -> None:
        server = self.server
        while server.runner.free:
            self.time("step of the start, in which devices get their first jobs", server.step)
        for _ in range(rounds):
            user = f"user{self.rng.randrange(self.users)}"
            server.now += 0.01
            self.time("step without an event", server.step)
            self.time("which job is next", server.store.next_waiting)
            reply = self.time("submit", server.request, self.request(), user)
            self.time("cancel", server.request, CancelJob(reply.job.job), user)
            device = self.rng.choice(sorted(server.runner.at_work))
            job = server.runner.at_work[device].job
            (server.store.job_folder(job) / "mesh.dwm").write_bytes(b"m")
            server.runner.queued.append(JobFinished(job, "succeeded", "", True, server.job(job).attempt, "", "0" * 64))
            self.time("a job ends and the next one starts", server.step)
            server.now += 3.0
            self.time("step with new estimates", server.step)


def fsync_ms(folder: Path) -> float:
    """Median time of a small write that reaches the disk."""
    took = []
    with (folder / "probe").open("wb") as file:
        for _ in range(50):
            started = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - started)
    return round(1000 * statistics.median(took), 2)


def main() -> int:
    parser = soak_parser(__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--devices", type=int, default=80, help="ten servers of eight GPUs")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    simulation = Simulation(options.folder / "state", options.jobs - options.rounds, options.users, options.devices)
    simulation.run(options.rounds)
    figures: dict[str, Any] = {"queued": options.jobs, "fsync ms": fsync_ms(options.folder), "load": os.getloadavg()[0]}
    for what, took in simulation.took.items():
        wall, cpu = ([1000 * seconds for seconds in kind] for kind in zip(*took, strict=True))
        figures[f"{what}, ms"] = {
            "median": round(statistics.median(wall), 2), "worst": round(max(wall), 2),
            "CPU, median": round(statistics.median(cpu), 2),
        }  # fmt: skip
    simulation.server.kill()
    return print_results(figures, [])


if __name__ == "__main__":
    sys.exit(main())
