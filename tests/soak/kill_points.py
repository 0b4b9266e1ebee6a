# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGKILL of a real server and its workers at random points; every job must end with the mesh of an uninterrupted run.

    OMP_NUM_THREADS=1 python -m tests.soak.kill_points --kills 20 --seed 0 --folder runs/kill_points

Each round restarts what was killed, submits jobs (each twice, as after a lost reply), and kills a random victim at a
random moment: just after a submit, while a checkpoint is written, just after its rename, at a step, while or just after
the mesh is written, or at any other time (mostly during loading). At the end all jobs finish and are checked.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.soak.command_line import soak_parser
from tests.soak.kill_soak import INTERVAL, Outcome, Soak
from tests.soak.worker_processes import is_process_running, read_attempts

MOMENTS = ("submit", "part", "renamed", "step", "mesh", "anywhere")
VICTIMS = (
    "server",
    "worker",
    "both",
    "orphan",
)  # "orphan": the server, while its workers are stopped and cannot detect its end


def soak(folder: Path, plan: list[tuple[str, str]], seed: int, steps: int, seeds: tuple[int, ...] = (0, 1)) -> Outcome:
    """Run each seed uninterrupted for the expected mesh, then kill at each (moment, victim), then check all jobs."""
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    soak = Soak(folder, steps, seeds)
    try:
        soak.start()
        for _ in seeds:
            soak.submit()
        soak.wait_until(lambda: not soak.open_jobs(), 300.0)
        expected = {job.seed: soak.fetch(job) for job in soak.jobs.values()}
        left = list(plan)
        while left and len(soak.outcome.missed) <= 2 * len(plan):
            moment, victim = left[0]
            while len(soak.open_jobs()) < len(seeds):
                soak.submit()
            if moment in ("part", "renamed", "step", "mesh"):
                soak.wait_until(soak.is_a_job_running)
            hit, workers = soak.wait_for(moment, rng), soak.workers()
            if not hit or (victim in ("worker", "orphan") and not workers):
                soak.outcome.missed.append(f"{moment} of {victim}")
                continue
            left.pop(0)
            reported = {name: job.step for name, job in soak.jobs.items() if job.state == "running"}
            attempts = {name: len(found) for name, found in read_attempts(soak.state).items()}
            soak.kill(victim, workers, rng)
            soak.outcome.partial_files += victim in ("worker", "both") and bool(soak.partial_files() - soak.stale)
            soak.outcome.interrupted += any(reported.values())
            soak.outcome.kills.append(f"{moment} of {victim}")
            if soak.server is None:
                soak.start()
                soak.resubmit()
            if soak.orphans:
                # A stopped worker without a job blocks no attempt, so this may wait in vain.
                end = time.monotonic() + 30.0
                soak.wait_until(
                    lambda: (
                        any(job.message.startswith("waiting for the end") for job in soak.jobs.values())
                        or time.monotonic() > end
                    )
                )
                soak.outcome.waited += any(job.message.startswith("waiting for the end") for job in soak.jobs.values())
                soak.release(attempts)
            for name, step in reported.items():
                # Counted from the last reported step, so this is a lower bound of the steps lost.
                soak.wait_until(
                    lambda name=name: (
                        len(read_attempts(soak.state).get(name, ())) > attempts.get(name, 0)
                        or soak.jobs[name].state == "succeeded"
                    )
                )
                after = read_attempts(soak.state).get(name, [])[attempts.get(name, 0) :]
                if after and step:
                    soak.outcome.steps_lost.append(max(0, step - after[0][1]))
            print(
                f"{len(soak.outcome.kills)}: {soak.outcome.kills[-1]}, {soak.outcome.steps_lost[-1:]} steps lost",
                flush=True,
            )
        if left:
            soak.outcome.faults.append(f"the moments of {left} did not come")
        soak.check(expected)
    finally:
        for pid in soak.orphans:
            if is_process_running(pid):
                os.kill(pid, signal.SIGKILL)
        soak.stop(signal.SIGTERM)
        soak.log.close()
    soak.outcome.wall_s = time.monotonic() - started
    return soak.outcome


def main() -> int:
    parser = soak_parser(__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--moments", nargs="+", choices=MOMENTS, default=MOMENTS, help="draw from these only")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS, help="draw from these only")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    plan = [(rng.choice(options.moments), rng.choice(options.victims)) for _ in range(options.kills)]
    outcome = soak(options.folder, plan, options.seed, options.steps)
    print(json.dumps(vars(outcome), indent=1))
    print(
        f"{len(outcome.kills)} kills ({len(outcome.missed)} missed and repeated), {outcome.identical} identical "
        "meshes of "
        f"{outcome.jobs} jobs and {outcome.tickets} tickets, {outcome.interrupted} kills during training, "
        f"{outcome.partial_files} during a write"
    )
    print(
        f"at most {max(outcome.steps_lost, default=0)} steps lost (checkpoints every {INTERVAL}), "
        f"{len(outcome.faults)} faults, {outcome.wall_s:.0f} s"
    )
    return 1 if outcome.faults or max(outcome.steps_lost, default=0) > INTERVAL else 0


if __name__ == "__main__":
    sys.exit(main())
