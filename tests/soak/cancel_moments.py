# SPDX-License-Identifier: GPL-3.0-or-later
"""Cancel jobs in every state, on a real server with a real worker, and measure the time until each has ended.

    OMP_NUM_THREADS=1 python -m tests.soak.cancel_moments --times 20 --stuck 5 --seed 1 --folder DIR

The moments, in random order: while queued, while the model is loaded (slowed to half a second), during a step (a tenth
of a second), during meshing (half a second), two requests, and after the end. In "stuck" ones loading or meshing never
returns, so the worker is killed after its grace period (15 s, or 75 s for meshing). The next job then finds a free
device.
"""

from __future__ import annotations

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
from tests.soak.command_line import soak_parser
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
    """Results for one moment."""

    seconds: list[float] = field(default_factory=list)  # from the cancel request to the end of the job
    steps_after: list[int] = field(default_factory=list)  # steps in the mesh beyond the step in the cancel reply
    meshes: int = 0
    messages: set[str] = field(default_factory=set)


@dataclass
class Outcome:
    """Results of a soak."""

    moments: dict[str, Cancelled] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    wall_s: float = 0.0


def soak(folder: Path, plan: list[str], seed: int, policy: Policy = GRACE) -> Outcome:
    """Cancel one job at each moment of the plan."""
    started, rng, outcome = time.monotonic(), random.Random(seed), Outcome()
    with running_fault_server(folder, policy, steps=STEPS) as server:
        for moment in plan:
            _one(server, moment, rng, outcome, policy.cancel_seconds)
    outcome.wall_s = time.monotonic() - started
    return outcome


def _one(
    server: FaultInjectionServer, moment: str, rng: random.Random, outcome: Outcome, cancel_seconds: float
) -> None:
    found = outcome.moments.setdefault(moment, Cancelled())
    before = server.submit(SLOW["step"]) if moment == "waiting" else None
    name = server.submit(SLOW.get({"twice": "step"}.get(moment, moment)))
    _until(server, moment, name, before, rng)
    sent = time.monotonic()
    reply = server.cancel(name)
    if moment == "twice":
        server.wait(rng.uniform(0.0, 0.2))
        again = server.cancel(name)
        if again.state not in ("cancelling", "cancelled"):
            outcome.faults.append(f"the second cancel request returned {again.state}")
    job = server.ended(name)
    found.seconds.append(
        max(0.0, server.histories[name].first(lambda seen: seen.state in ("cancelled", "succeeded", "failed")) - sent)
    )
    found.messages.add(job.message)
    if job.state != ("succeeded" if moment == "after" else "cancelled"):
        outcome.faults.append(f"{moment}: the job is {job.state}: {job.message}")
    if job.mesh_bytes:
        found.meshes += 1
        done = decode_mesh((server.server.store.job_folder(name) / MESH_FILE).read_bytes()).facts["steps"]
        found.steps_after.append(done - reply.step)
        if done - reply.step > 2:  # the running step, and one whose report was not read yet
            outcome.faults.append(f"{moment}: {done - reply.step} steps after the cancel request")
    if bool(job.mesh_bytes) != (moment in ("step", "mesh", "twice", "after")):
        outcome.faults.append(f"{moment}: {job.mesh_bytes} bytes of mesh; {job.message}")
    if moment in STUCK:
        grace = cancel_seconds * (MESH_CANCEL_FACTOR if moment == "stuck mesh" else 1.0)
        if found.seconds[-1] < grace - 0.5 or f"did not stop within {grace:.0f} s" not in job.message:
            outcome.faults.append(f"{moment}: it ended after {found.seconds[-1]:.1f} s: {job.message}")
        after = server.ended(server.submit())
        if after.state != "succeeded":
            outcome.faults.append(f"{moment}: the next job {after.state}: {after.message}")
    if before is not None:
        server.cancel(before)
        server.ended(before)
    print(f"{moment}: {job.state} after {found.seconds[-1]:.2f} s, {found.steps_after[-1:]} steps", flush=True)


def _until(server: FaultInjectionServer, moment: str, name: str, before: str | None, rng: random.Random) -> None:
    """Wait until the moment, plus a random part of it."""
    if before is not None:
        server.wait_until(lambda: server.job(before).step >= 1)
    elif moment in ("loading", "stuck loading"):
        server.wait_until(lambda: bool(server.faults_injected(name)))
        server.wait(rng.uniform(0.0, 0.4))
    elif moment in ("step", "twice"):
        target = rng.randint(2, STEPS - 3)
        server.wait_until(lambda: server.job(name).step >= target)
        server.wait(rng.uniform(0.0, 0.1))
    elif moment in ("mesh", "stuck mesh"):
        server.wait_until(lambda: bool(server.faults_injected(name)))
        server.wait(rng.uniform(0.0, 0.4))
    else:
        server.ended(name)


def table(outcome: Outcome) -> list[dict[str, Any]]:
    """One row for each moment."""
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
    parser = soak_parser(__doc__)
    parser.add_argument("--times", type=int, default=20, help="repetitions of each moment")
    parser.add_argument(
        "--stuck", type=int, default=2, help="repetitions of each moment in which loading or meshing never returns"
    )
    parser.add_argument("--seed", type=int, default=0)
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
