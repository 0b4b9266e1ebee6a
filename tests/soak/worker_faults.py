# SPDX-License-Identifier: GPL-3.0-or-later
"""Inject faults into real workers of a real server and measure the recovery time of each job.

    OMP_NUM_THREADS=1 python -m tests.soak.worker_faults --times 3 --seed 1 --folder DIR

Each job gets one fault at a random step and must end as the table in `backend/server/workers/failure_policy.py` states.
Two times are measured from the fault, by the machine's monotonic clock: until the server has assigned the job again,
and until the next attempt reports a step. The second includes the start of a process and the import of all libraries.
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

from dreamwright.backend.server.policy import Policy
from tests.soak.command_line import soak_parser
from tests.soak.fault_injection_server import INTERVAL, FaultInjectionServer, running_fault_server

STEPS = 12
HANG_S = 30.0
# By kind: (cause, whether the job is retried, whether the checkpoint is from the step before the fault).
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
    """Results for one kind of fault."""

    reassigned_s: list[float] = field(default_factory=list)
    first_step_s: list[float] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)  # steps repeated after the retry
    ended: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """Results of a soak."""

    kinds: dict[str, Faults] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    wall_s: float = 0.0


def soak(folder: Path, plan: list[str], seed: int) -> Outcome:
    """Run one job with a fault for each kind in the plan."""
    started, rng, outcome = time.monotonic(), random.Random(seed), Outcome()
    with running_fault_server(folder, Policy(hang_minutes=HANG_S / 60.0), steps=STEPS) as server:
        for kind in plan:
            _one(server, kind, rng.randint(2, STEPS - 2), outcome)
            found = outcome.kinds[kind]
            print(
                f"{kind}: {found.ended[-1]}, reassigned after {found.reassigned_s[-1:]}, first step after "
                f"{found.first_step_s[-1:]}, "
                f"lost {found.lost[-1:]}",
                flush=True,
            )
    outcome.wall_s = time.monotonic() - started
    return outcome


def _one(server: FaultInjectionServer, kind: str, step: int, outcome: Outcome) -> None:
    cause, again, newest = KINDS[kind]
    found = outcome.kinds.setdefault(kind, Faults())
    number = getattr(signal, kind, None)
    settings = {"run.views_per_step": "2"} if kind == "memory" else {}
    plan: dict[str, Any] = (
        {"where": "step", "what": "wait", "seconds": 0.1}
        if number
        else {"where": "step", "what": kind, "step": step + 1}
    )
    name = server.submit(plan, **settings)
    if number:
        server.wait_until(lambda: server.job(name).step >= step)
        step, at = server.job(name).step, time.monotonic()
        os.kill(server.worker(), number)
    else:
        server.wait_until(lambda: bool(server.faults_injected(name)))
        at = server.faults_injected(name)[0][1]
    job, history = server.ended(name), server.histories[name]
    found.ended.append(job.state)
    if job.state != ("succeeded" if again else "failed") or job.attempt != (2 if again else 1):
        outcome.faults.append(f"{kind}: {job.state} at attempt {job.attempt}: {job.message}")
        return
    seen = {seen.cause for _, seen in history.seen}
    if cause not in seen:
        outcome.faults.append(f"{kind}: reported causes {seen}; expected {cause}")
    if not again:
        if not job.resumable and step >= INTERVAL:
            outcome.faults.append(f"{kind}: the checkpoint is missing")
        return
    found.reassigned_s.append(history.first(lambda seen: seen.state == "running" and seen.attempt == 2) - at)
    before = next(seen.elapsed_s for _, seen in history.seen if seen.attempt == 2)
    found.first_step_s.append(history.first(lambda seen: seen.attempt == 2 and seen.elapsed_s != before) - at)
    went_on = server.attempts(name)[1][1]
    found.lost.append(step - went_on)
    if went_on < (step if newest else step // INTERVAL * INTERVAL):
        outcome.faults.append(f"{kind}: {step - went_on} steps behind")


def main() -> int:
    parser = soak_parser(__doc__)
    parser.add_argument("--times", type=int, default=3, help="number of faults of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    plan = options.kinds * options.times
    random.Random(options.seed).shuffle(plan)
    outcome = soak(options.folder, plan, options.seed)
    for kind, found in outcome.kinds.items():
        row = {
            "fault": kind,
            "times": len(found.ended),
            "ended": sorted(set(found.ended)),
            "most_steps_lost": max(found.lost, default=None),
        }
        for name in ("reassigned_s", "first_step_s"):
            figures = getattr(found, name)
            row |= {name: [round(statistics.median(figures), 2), round(max(figures), 2)]} if figures else {}
        print(json.dumps(row))
    print(f"{len(plan)} faults in {outcome.wall_s:.0f} s, {len(outcome.faults)} unexpected results: {outcome.faults}")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
