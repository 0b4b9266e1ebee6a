# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure request latency of one user while others fill the queue, and the share of the queue one user gets.

python -m tests.soak.queue_flood --folder runs/queue_flood
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from dreamwright.backend.server.policy import Policy
from dreamwright.shared.errors import RequestError
from dreamwright.shared.messages import CancelJob, ListJobs
from tests.soak.command_line import soak_parser
from tests.testing.in_memory_server import InMemoryServer


def latency_ms(action: Callable[[], Any], times: int) -> dict[str, float]:
    """Median and worst duration of repeated calls, ms."""
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        spent.append(1000 * (time.perf_counter() - started))
    return {"median_ms": round(statistics.median(spent), 2), "worst_ms": round(max(spent), 2)}


def requests_of_bob(in_memory_server: InMemoryServer, times: int = 30) -> dict[str, dict[str, float]]:
    """Latency of submit (including its database write), list and cancel."""
    jobs: list[str] = []
    figures = {
        "submit": latency_ms(lambda: jobs.append(in_memory_server.submit("bob")), times),
        "list": latency_ms(lambda: in_memory_server.request(ListJobs(), "bob"), times),
    }
    return {**figures, "cancel": latency_ms(lambda: in_memory_server.request(CancelJob(jobs.pop()), "bob"), times)}


def main() -> int:
    parser = soak_parser(__doc__)
    folder = parser.parse_args().folder
    policy = Policy()
    in_memory_server = InMemoryServer(folder, ("cuda:0", "cuda:1"), policy)
    figures: dict[str, Any] = {"alone": requests_of_bob(in_memory_server)}
    refused = 0
    for user in range(8):
        for _ in range(policy.jobs_per_user + 40):
            try:
                in_memory_server.submit(f"user{user}")
            except RequestError:
                refused += 1
        if user == 0:
            figures["accepted jobs of one flooding user"] = in_memory_server.store.open_jobs("user0")
            first = in_memory_server.submit("ada")
            figures["queue position of the first job of another user"] = in_memory_server.job(first).queue_position
            in_memory_server.request(CancelJob(first), "ada")
    figures["open jobs"], figures["refused"] = in_memory_server.store.open_jobs(), refused
    if in_memory_server.store.open_jobs() > policy.jobs_total - 30:
        for name in [job for job, entry in in_memory_server.store.records.items() if entry.owner == "user7"][:30]:
            in_memory_server.request(CancelJob(name), "user7")
    figures["under load"] = requests_of_bob(in_memory_server)
    figures["one server step"] = latency_ms(in_memory_server.service.step, 30)
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
