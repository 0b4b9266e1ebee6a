# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGKILL at random points of a real server and its real workers; every job must end in the mesh of an undisturbed run.

    OMP_NUM_THREADS=1 python -m tests.soak.kill_points --kills 20 --seed 0 --folder runs/kill_points

A round: restart what was killed, keep jobs coming (each sent twice, as after a lost reply), choose a moment and a
victim
by the seed, kill. The moments: just after a submit is sent, while a checkpoint is being written, when one was just
renamed, at some step, while or just after the mesh is written, and anywhere else (loading, mostly). At the end all jobs
run to their end and are judged.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.soak.kill_soak import INTERVAL, Outcome, Soak
from tests.soak.worker_processes import alive, read_attempts

MOMENTS = ("submit", "part", "renamed", "step", "mesh", "anywhere")
VICTIMS = (
    "server",
    "worker",
    "both",
    "orphan",
)  # "orphan": the server, while its workers stand still and cannot notice


def soak(folder: Path, plan: list[tuple[str, str]], seed: int, steps: int, seeds: tuple[int, ...] = (0, 1)) -> Outcome:
    """An undisturbed run of each seed, whose bytes all jobs of that seed must have; a kill for each (moment, victim);
    judgement.
    """
    begun = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    dice = random.Random(seed)
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
                soak.wait_until(soak.keeps_a_job_running)
            hit, workers = soak.wait_for(moment, dice), soak.workers()
            if not hit or (victim in ("worker", "orphan") and not workers):
                soak.outcome.missed.append(f"{moment} of {victim}")
                continue
            left.pop(0)
            told = {name: job.step for name, job in soak.jobs.items() if job.state == "running"}
            attempts = {name: len(found) for name, found in read_attempts(soak.state).items()}
            soak.kill(victim, workers, dice)
            soak.outcome.halves += victim in ("worker", "both") and bool(soak.halves() - soak.stale)
            soak.outcome.interrupted += any(told.values())
            soak.outcome.kills.append(f"{moment} of {victim}")
            if soak.server is None:
                soak.start()
                soak.resubmit()
            if soak.orphans:
                # A worker that had no job in hand holds none, so there may be nothing to wait for.
                end = time.monotonic() + 30.0
                soak.wait_until(
                    lambda: (
                        any(job.message.startswith("waiting for the end") for job in soak.jobs.values())
                        or time.monotonic() > end
                    )
                )
                soak.outcome.held_back += any(
                    job.message.startswith("waiting for the end") for job in soak.jobs.values()
                )
                soak.release(attempts)
            for name, step in told.items():
                # When it goes on, from where? Only what was told counts, so this is the least that it lost.
                soak.wait_until(
                    lambda name=name: (
                        len(read_attempts(soak.state).get(name, ())) > attempts.get(name, 0)
                        or soak.jobs[name].state == "succeeded"
                    )
                )
                after = read_attempts(soak.state).get(name, [])[attempts.get(name, 0) :]
                if after and step:
                    soak.outcome.behind.append(max(0, step - after[0][1]))
            print(
                f"{len(soak.outcome.kills)}: {soak.outcome.kills[-1]}, {soak.outcome.behind[-1:]} steps behind",
                flush=True,
            )
        if left:
            soak.outcome.faults.append(f"the moments of {left} did not come")
        soak.judge(expected)
    finally:
        for pid in soak.orphans:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        soak.stop(signal.SIGTERM)
        soak.log.close()
    soak.outcome.wall_s = time.monotonic() - begun
    return soak.outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--folder", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--moments", nargs="+", choices=MOMENTS, default=MOMENTS, help="draw from these only")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS, help="draw from these only")
    options = parser.parse_args()
    dice = random.Random(options.seed)
    plan = [(dice.choice(options.moments), dice.choice(options.victims)) for _ in range(options.kills)]
    outcome = soak(options.folder, plan, options.seed, options.steps)
    print(json.dumps(vars(outcome), indent=1))
    print(
        f"{len(outcome.kills)} kills ({len(outcome.missed)} missed and done over), {outcome.identical} identical "
        "meshes of "
        f"{outcome.jobs} jobs and {outcome.tickets} tickets, {outcome.interrupted} kills in mid-run, "
        f"{outcome.halves} in mid-write"
    )
    print(
        f"at most {max(outcome.behind, default=0)} steps behind (checkpoints every {INTERVAL}), "
        f"{len(outcome.faults)} faults, {outcome.wall_s:.0f} s"
    )
    return 1 if outcome.faults or max(outcome.behind, default=0) > INTERVAL else 0


if __name__ == "__main__":
    sys.exit(main())
