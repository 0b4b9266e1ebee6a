# SPDX-License-Identifier: GPL-3.0-or-later
"""Harm real workers of a real server again and again, and measure how long each fault keeps its job from working.

    OMP_NUM_THREADS=1 python -m tests.soak.worker_faults --times 3 --seed 1 --folder DIR

Each job comes to one fault at a step drawn by the seed, and must end as the table of
`backend/server/workers/failure_policy.py` says.
Measured from the fault, by the machine's monotonic clock: until the server has given the job out again, and until the
next attempt has told of a step, which the start of a process and the loading of all libraries are part of.
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
from typing import Any

from dreamwright.backend.server.policy import Policy
from tests.soak.fault_injection_server import INTERVAL, FaultInjectionServer, running_fault_server

STEPS = 12
HANG_S = 30.0
# By kind: (cause, whether it is tried again, whether the checkpoint is that of the step before).
KINDS = {
    "SIGKILL": ("killed", True, False),
    "segfault": ("crashed", True, False),
    "abort": ("crashed", True, False),
    "exit": ("crashed", True, False),
    "device": ("device-fault", True, False),
    "hang": ("hang", True, False),
    "SIGSTOP": ("hang", True, False),
    "memory": ("memory", True, True),
    "persistent memory": ("memory", False, True),
    "nan": ("not-a-number", False, False),
    "bug": ("fault", False, False),
}


@dataclass
class Faults:
    """What was seen of one kind."""

    given_again_s: list[float] = field(default_factory=list)
    stepping_again_s: list[float] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)  # steps done that were done again
    ended: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """What a soak saw."""

    kinds: dict[str, Faults] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    wall_s: float = 0.0


def soak(folder: Path, plan: list[str], seed: int) -> Outcome:
    """One faults_injected job for each kind of the plan."""
    begun, dice, outcome = time.monotonic(), random.Random(seed), Outcome()
    with running_fault_server(folder, Policy(hang_minutes=HANG_S / 60.0), steps=STEPS) as opened:
        for kind in plan:
            _one(opened, kind, dice.randint(2, STEPS - 2), outcome)
            found = outcome.kinds[kind]
            print(
                f"{kind}: {found.ended[-1]}, given again after {found.given_again_s[-1:]}, stepping after "
                f"{found.stepping_again_s[-1:]}, "
                f"lost {found.lost[-1:]}",
                flush=True,
            )
    outcome.wall_s = time.monotonic() - begun
    return outcome


def _one(here: FaultInjectionServer, kind: str, step: int, outcome: Outcome) -> None:
    cause, again, newest = KINDS[kind]
    found = outcome.kinds.setdefault(kind, Faults())
    number = getattr(signal, kind, None)
    settings = {"run.views_per_step": "2"} if kind == "memory" else {}
    plan: dict[str, Any] = (
        {"where": "step", "what": "wait", "seconds": 0.1}
        if number
        else {"where": "step", "what": kind, "step": step + 1}
    )
    name = here.submit(plan, **settings)
    if number:
        here.wait_until(lambda: here.job(name).step >= step)
        step, at = here.job(name).step, time.monotonic()
        os.kill(here.worker(), number)
    else:
        here.wait_until(lambda: bool(here.faults_injected(name)))
        at = here.faults_injected(name)[0][1]
    job, life = here.ended(name), here.lives[name]
    found.ended.append(job.state)
    if job.state != ("succeeded" if again else "failed") or job.attempt != (2 if again else 1):
        outcome.faults.append(f"{kind}: {job.state} at attempt {job.attempt}: {job.message}")
        return
    seen = {seen.cause for _, seen in life.seen}
    if cause not in seen:
        outcome.faults.append(f"{kind}: told as {seen}, not as {cause}")
    if not again:
        if not job.resumable and step >= INTERVAL:
            outcome.faults.append(f"{kind}: its checkpoint is gone")
        return
    found.given_again_s.append(life.first(lambda seen: seen.state == "running" and seen.attempt == 2) - at)
    before = next(seen.elapsed_s for _, seen in life.seen if seen.attempt == 2)
    found.stepping_again_s.append(life.first(lambda seen: seen.attempt == 2 and seen.elapsed_s != before) - at)
    went_on = here.attempts(name)[1][1]
    found.lost.append(step - went_on)
    if went_on < (step if newest else step // INTERVAL * INTERVAL):
        outcome.faults.append(f"{kind}: {step - went_on} steps behind")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3, help="faults of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--folder", type=Path, required=True, help="a new or empty folder")
    options = parser.parse_args()
    plan = options.kinds * options.times
    random.Random(options.seed).shuffle(plan)
    outcome = soak(options.folder, plan, options.seed)
    for kind, found in outcome.kinds.items():
        told = {
            "fault": kind,
            "times": len(found.ended),
            "ended": sorted(set(found.ended)),
            "most_steps_lost": max(found.lost, default=None),
        }
        for name in ("given_again_s", "stepping_again_s"):
            figures = getattr(found, name)
            told |= {name: [round(statistics.median(figures), 2), round(max(figures), 2)]} if figures else {}
        print(json.dumps(told))
    print(f"{len(plan)} faults in {outcome.wall_s:.0f} s, {len(outcome.faults)} wrong: {outcome.faults}")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
