# SPDX-License-Identifier: GPL-3.0-or-later
"""Cancel at every moment of a job's life, on a real server with a real worker; each must end as it should, and soon.

    OMP_NUM_THREADS=1 python -m tests.soak.cancel_moments --times 20 --stuck 5 --seed 1 --folder DIR

The moments, in an order drawn by the seed: while the job waits in line, while its model is loaded (half a second), in a
step (a tenth), while its mesh is made (half a second), twice, and after its end. In "stuck" ones loading or the mesh
never
returns, so that the worker is ended after its grace (15 s, or 75 s for the mesh); the next job shows that the device is
free.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamwright.backend.server.policy import Policy
from dreamwright.backend.server.workers.heartbeat import MESH_CANCEL_FACTOR
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.shared.mesh_file import decode_mesh
from tests.soak.fault_injection_server import FaultInjectionServer, running_fault_server

GRACE = Policy(cancel_seconds=15.0, hang_minutes=30.0)
STEPS = 8
SLOW = {
    "loading": {"where": "loading", "what": "wait", "seconds": 0.5},
    "step": {"where": "step", "what": "wait", "seconds": 0.1},
    "mesh": {"where": "mesh", "what": "wait", "seconds": 0.5},
    "stuck loading": {"where": "loading", "what": "hang"},
    "stuck mesh": {"where": "mesh", "what": "hang"},
}
MOMENTS = ("waiting", "loading", "step", "mesh", "twice", "after")
STUCK = ("stuck loading", "stuck mesh")


@dataclass
class Cancelled:
    """One moment's repetitions."""

    seconds: list[float] = field(default_factory=list)  # from Cancel to the end
    steps_after: list[int] = field(
        default_factory=list
    )  # that the mesh has beyond what was told when Cancel was answered
    meshes: int = 0
    messages: set[str] = field(default_factory=set)


@dataclass
class Outcome:
    """What a soak saw."""

    moments: dict[str, Cancelled] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    wall_s: float = 0.0


def soak(folder: Path, plan: list[str], seed: int) -> Outcome:
    """One cancelled job for each moment of the plan."""
    begun, dice, outcome = time.monotonic(), random.Random(seed), Outcome()
    with running_fault_server(folder, GRACE, steps=STEPS) as opened:
        for moment in plan:
            _one(opened, moment, dice, outcome)
    outcome.wall_s = time.monotonic() - begun
    return outcome


def _one(here: FaultInjectionServer, moment: str, dice: random.Random, outcome: Outcome) -> None:
    found = outcome.moments.setdefault(moment, Cancelled())
    before = here.submit(SLOW["step"]) if moment == "waiting" else None
    name = here.submit(SLOW.get({"twice": "step"}.get(moment, moment)))
    _until(here, moment, name, before, dice)
    sent = time.monotonic()
    told = here.cancel(name)
    if moment == "twice":
        here.wait(dice.uniform(0.0, 0.2))
        again = here.cancel(name)
        if again.state not in ("cancelling", "cancelled"):
            outcome.faults.append(f"the second Cancel was answered with {again.state}")
    job = here.ended(name)
    found.seconds.append(
        max(0.0, here.lives[name].first(lambda seen: seen.state in ("cancelled", "succeeded", "failed")) - sent)
    )
    found.messages.add(job.message)
    if job.state != ("succeeded" if moment == "after" else "cancelled"):
        outcome.faults.append(f"{moment}: the job is {job.state}: {job.message}")
    if job.mesh_bytes:
        found.meshes += 1
        done = decode_mesh((here.server.store.job_folder(name) / MESH_FILE).read_bytes()).facts["steps"]
        found.steps_after.append(done - told.step)
        if done - told.step > 2:  # the one in hand when Cancel came, and one whose end was not read yet
            outcome.faults.append(f"{moment}: {done - told.step} steps after Cancel")
    if bool(job.mesh_bytes) != (moment in ("step", "mesh", "twice", "after")):
        outcome.faults.append(f"{moment}: {job.mesh_bytes} bytes of mesh; {job.message}")
    if moment in STUCK:
        grace = GRACE.cancel_seconds * (MESH_CANCEL_FACTOR if moment == "stuck mesh" else 1.0)
        if found.seconds[-1] < grace - 0.5 or f"did not stop within {grace:.0f} s" not in job.message:
            outcome.faults.append(f"{moment}: it ended after {found.seconds[-1]:.1f} s: {job.message}")
        after = here.ended(here.submit())
        if after.state != "succeeded":
            outcome.faults.append(f"{moment}: the next job {after.state}: {after.message}")
    if before is not None:
        here.cancel(before)
        here.ended(before)
    print(f"{moment}: {job.state} after {found.seconds[-1]:.2f} s, {found.steps_after[-1:]} steps", flush=True)


def _until(here: FaultInjectionServer, moment: str, name: str, before: str | None, dice: random.Random) -> None:
    """Until the moment has come, and a bit into it."""
    if before is not None:
        here.wait_until(lambda: here.job(before).step >= 1)
    elif moment in ("loading", "stuck loading"):
        here.wait_until(lambda: bool(here.faults_injected(name)))
        here.wait(dice.uniform(0.0, 0.4))
    elif moment in ("step", "twice"):
        target = dice.randint(2, STEPS - 3)
        here.wait_until(lambda: here.job(name).step >= target)
        here.wait(dice.uniform(0.0, 0.1))
    elif moment in ("mesh", "stuck mesh"):
        here.wait_until(lambda: bool(here.faults_injected(name)))
        here.wait(dice.uniform(0.0, 0.4))
    else:
        here.ended(name)


def table(outcome: Outcome) -> list[dict[str, Any]]:
    """A row a moment."""
    return [
        {
            "moment": moment,
            "times": len(found.seconds),
            "median_s": round(statistics.median(found.seconds), 3),
            "most_s": round(max(found.seconds), 3),
            "most_steps_after": max(found.steps_after, default=None),
            "meshes": found.meshes,
        }
        for moment, found in outcome.moments.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="repetitions of each moment")
    parser.add_argument("--stuck", type=int, default=2, help="of each in which loading or the mesh never returns")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True, help="a new or empty folder")
    options = parser.parse_args()
    plan = [*MOMENTS * options.times, *STUCK * options.stuck]
    random.Random(options.seed).shuffle(plan)
    outcome = soak(options.folder, plan, options.seed)
    for row in table(outcome):
        print(json.dumps(row))
    print(f"{len(plan)} cancelled jobs in {outcome.wall_s:.0f} s, {len(outcome.faults)} faults {outcome.faults}")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
