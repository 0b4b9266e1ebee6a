# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGTERM during a job, repeatedly: the time until a real server exits, and the steps that the job loses.

    OMP_NUM_THREADS=1 python -m tests.soak.graceful_stop --stops 10 --seed 0 --folder runs/graceful_stop

One job is stopped at random steps and resumes after each restart. The only checkpoints are those written for the stops.
Its mesh must equal that of an uninterrupted run, byte for byte. `--hung N` adds N stops with the worker stopped by
SIGSTOP, where the server must kill it after the grace period.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamwright.shared.messages import ServerShutdown
from tests.soak.command_line import soak_parser
from tests.soak.kill_soak import Soak
from tests.soak.worker_processes import is_process_running, read_attempts

LIMIT_S = 1800.0  # limit for any wait on a busy machine
HUNG_GRACE_S = 3.0  # grace period in rounds with a stopped worker


@dataclass
class StopResults:
    """Results of all stops."""

    exit_s: list[float] = field(default_factory=list)  # from SIGTERM to the exit of the server
    hung_exit_s: list[float] = field(default_factory=list)  # the same with a stopped worker
    notified_s: list[float] = field(default_factory=list)  # from SIGTERM until the client received the notice
    steps_lost: list[int] = field(default_factory=list)  # reported steps that were repeated
    codes: list[int] = field(default_factory=list)
    identical: bool = False
    faults: list[str] = field(default_factory=list)


class GracefulStopSoak(Soak):
    """A soak that records shutdown notices."""

    def __init__(self, folder: Path, steps: int) -> None:
        super().__init__(folder, steps, (0,))
        self.interval = 1_000_000  # no periodic checkpoints
        self.notices: list[ServerShutdown] = []

    def handle_event(self, event: Any) -> None:
        super().handle_event(event)
        if isinstance(event, ServerShutdown):
            self.notices.append(event)

    def running(self) -> bool:
        return any(job.state == "running" and job.step for job in self.jobs.values())

    def terminate(self, is_hung: bool, figures: StopResults) -> None:
        """Send SIGTERM; returns when the server has exited."""
        workers = self.workers()
        self.notices.clear()
        if is_hung:
            for pid in workers:
                os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        self.server.send_signal(signal.SIGTERM)
        notified = None
        while self.server.poll() is None and time.monotonic() - started < 120:
            self.step()
            notified = notified or (time.monotonic() - started if self.notices else None)
        took = time.monotonic() - started
        for _ in range(20):  # receive messages still in transit
            self.step()
        notified = notified or (took if self.notices else None)
        (figures.hung_exit_s if is_hung else figures.exit_s).append(round(took, 3))
        figures.codes.append(self.server.wait(1))
        if notified is None:
            figures.faults.append("the client got no shutdown notice")
        else:
            figures.notified_s.append(round(notified, 3))
        if any(is_process_running(pid) for pid in workers):
            figures.faults.append(f"workers {workers} outlived their server")
        self.server.stdout.close()
        self.server = None
        self.client.close()
        self.client = None


def stop_and_resume(folder: Path, stops: int, hung: int, seed: int, steps: int) -> StopResults:
    """Stop and resume one job repeatedly and compare its mesh with an uninterrupted run."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, figures = random.Random(seed), StopResults()
    soak = GracefulStopSoak(folder, steps)
    try:
        soak.start()
        soak.submit()
        soak.wait_until(lambda: not soak.open_jobs(), LIMIT_S)
        (first,) = soak.jobs.values()
        expected = soak.fetch(first)
        soak.submit()
        name = next(job for job in soak.jobs if job != first.job)
        plan = [False] * stops + [True] * hung
        for number, is_hung in enumerate(plan):
            # A random step that leaves room for the remaining stops.
            low = max((step for _, step in read_attempts(soak.state).get(name, ())), default=0)
            target = low + rng.randint(1, max(1, (steps - low) // (2 * (len(plan) - number))))
            soak.wait_until(
                lambda target=target: soak.jobs[name].state == "running" and soak.jobs[name].step >= target, LIMIT_S
            )
            before = len(read_attempts(soak.state)[name])
            soak.terminate(is_hung, figures)
            soak.options = ("--grace", str(HUNG_GRACE_S)) if number + 1 < len(plan) and plan[number + 1] else ()
            reached = soak.reached[name]
            soak.start()
            soak.wait_until(lambda before=before: len(read_attempts(soak.state)[name]) > before, LIMIT_S)
            if not is_hung:
                figures.steps_lost.append(max(0, reached - read_attempts(soak.state)[name][before][1]))
            soak.reached[name] = 0
            print(
                f"{number + 1}: {'hung, ' if is_hung else ''}step {reached}, "
                f"{(figures.hung_exit_s if is_hung else figures.exit_s)[-1]:.2f} s",
                flush=True,
            )
        soak.wait_until(lambda: not soak.open_jobs(), LIMIT_S)
        job = soak.jobs[name]
        figures.identical = job.state == "succeeded" and soak.fetch(job) == expected
        if not figures.identical:
            figures.faults.append(f"job {job.state}, {job.message or 'a different mesh'}")
    finally:
        soak.stop(signal.SIGTERM)
        soak.log.close()
    return figures


def main() -> int:
    parser = soak_parser(__doc__)
    parser.add_argument("--stops", type=int, default=10)
    parser.add_argument("--hung", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args()
    figures = stop_and_resume(options.folder, options.stops, options.hung, options.seed, options.steps)
    print(json.dumps(vars(figures)))
    for words, times in (
        ("running worker", figures.exit_s),
        ("stopped worker", figures.hung_exit_s),
        ("client notified", figures.notified_s),
    ):
        if times:
            print(
                f"{words}: {len(times)} times, {min(times):.2f} to {max(times):.2f} s, median "
                f"{statistics.median(times):.2f} s"
            )
    print(
        f"at most {max(figures.steps_lost, default=0)} steps lost, exit codes {sorted(set(figures.codes))}, identical "
        f"mesh: {figures.identical}"
    )
    return 1 if figures.faults or set(figures.codes) != {0} or max(figures.steps_lost, default=0) else 0


if __name__ == "__main__":
    sys.exit(main())
