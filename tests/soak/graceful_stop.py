# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGTERM in the middle of a job, again and again: how long does a real server take to end, and does the job lose a
step?

    OMP_NUM_THREADS=1 python -m tests.soak.graceful_stop --stops 10 --seed 0 --folder runs/graceful_stop

One job is stopped at random steps, and goes on after each restart; the only checkpoints are those that the stops ask
for.
Its mesh must be that of an undisturbed run, byte for byte. `--hung N`: as many more stops with the worker standing
still
(SIGSTOP), where the server must end by killing it once the grace is over.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from dreamwright.shared.messages import JobChanged, JobList, ServerShutdown
from tests.soak.kill_soak import Soak
from tests.soak.worker_processes import alive, read_attempts

LIMIT_S = 1800.0  # for anything to come about on a machine that is busy
HUNG_GRACE_S = 3.0  # that the server is given in rounds whose worker stands still


@dataclass
class MetricsSnapshot:
    """What was seen of all stops."""

    exit_s: list[float] = field(default_factory=list)  # from SIGTERM to the end of the server's process
    hung_exit_s: list[float] = field(default_factory=list)  # the same with a worker that stands still
    told_s: list[float] = field(default_factory=list)  # from SIGTERM until the client had read of it
    behind: list[int] = field(default_factory=list)  # steps that the client was told of and that were done again
    codes: list[int] = field(default_factory=list)
    identical: bool = False
    faults: list[str] = field(default_factory=list)


class Stops(Soak):
    """A soak that hears farewells."""

    def __init__(self, folder: Path, steps: int) -> None:
        super().__init__(folder, steps, (0,))
        self.interval = 1_000_000  # no checkpoint but the one that a stop asks for
        self.closings: list[ServerShutdown] = []

    def step(self, wait_s: float = 0.003) -> None:
        for event in self.client.tick():
            for job in (
                event.jobs if isinstance(event, JobList) else (event.job,) if isinstance(event, JobChanged) else ()
            ):
                self.jobs[job.job] = job
                self.reached[job.job] = max(self.reached.get(job.job, 0), job.step)
            if isinstance(event, ServerShutdown):
                self.closings.append(event)
        time.sleep(wait_s)

    def running(self) -> bool:
        return any(job.state == "running" and job.step for job in self.jobs.values())

    def terminate(self, is_hung: bool, figures: MetricsSnapshot) -> None:
        """SIGTERM now; returns when the server is gone."""
        workers = self.workers()
        self.closings.clear()
        if is_hung:
            for pid in workers:
                os.kill(pid, signal.SIGSTOP)
        begun = time.monotonic()
        self.server.send_signal(signal.SIGTERM)
        told = None
        while self.server.poll() is None and time.monotonic() - begun < 120:
            self.step()
            told = told or (time.monotonic() - begun if self.closings else None)
        took = time.monotonic() - begun
        for _ in range(20):  # what was still on the way
            self.step()
        told = told or (took if self.closings else None)
        (figures.hung_exit_s if is_hung else figures.exit_s).append(round(took, 3))
        figures.codes.append(self.server.wait(1))
        if told is None:
            figures.faults.append("the client was not told")
        else:
            figures.told_s.append(round(told, 3))
        if any(alive(pid) for pid in workers):
            figures.faults.append(f"workers {workers} outlived their server")
        self.server.stdout.close()
        self.server = None
        self.client.close()
        self.client = None


def stop_and_go_on(folder: Path, stops: int, hung: int, seed: int, steps: int) -> MetricsSnapshot:
    """The whole soak."""
    folder.mkdir(parents=True, exist_ok=True)
    dice, figures = random.Random(seed), MetricsSnapshot()
    soak = Stops(folder, steps)
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
            # Far enough for a random step, and room for the stops that are still to come.
            low = max((step for _, step in read_attempts(soak.state).get(name, ())), default=0)
            target = low + dice.randint(1, max(1, (steps - low) // (2 * (len(plan) - number))))
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
                figures.behind.append(max(0, reached - read_attempts(soak.state)[name][before][1]))
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
            figures.faults.append(f"job {job.state}, {job.message or 'another mesh'}")
    finally:
        soak.stop(signal.SIGTERM)
        soak.log.close()
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=10)
    parser.add_argument("--hung", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--folder", type=Path, required=True, help="a new or empty folder")
    options = parser.parse_args()
    figures = stop_and_go_on(options.folder, options.stops, options.hung, options.seed, options.steps)
    print(json.dumps(vars(figures)))
    for words, times in (
        ("in mid-step", figures.exit_s),
        ("with a hung worker", figures.hung_exit_s),
        ("until the client knew", figures.told_s),
    ):
        if times:
            print(
                f"{words}: {len(times)} times, {min(times):.2f} to {max(times):.2f} s, median "
                f"{statistics.median(times):.2f} s"
            )
    print(
        f"at most {max(figures.behind, default=0)} steps behind, exit codes {sorted(set(figures.codes))}, identical "
        f"mesh: {figures.identical}"
    )
    return 1 if figures.faults or set(figures.codes) != {0} or max(figures.behind, default=0) else 0


if __name__ == "__main__":
    sys.exit(main())
