# SPDX-License-Identifier: GPL-3.0-or-later
"""A server and workers that are killed at chosen moments, a client that survives them, and the results."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamwright.backend.server.workers.worker import ORPHAN_GRACE_S
from dreamwright.shared.client import Client
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.errors import RequestError
from dreamwright.shared.job_states import ENDED
from dreamwright.shared.messages import JobReply, JobSummary, SubmitJob
from dreamwright.shared.transfer import Download
from tests.soak.worker_processes import children, is_process_running, read_attempts
from tests.testing.job_events import jobs_in
from tests.testing.serve_command import serve_command
from tests.testing.tiny_model import QUICK, save_tiny_model

INTERVAL = 4  # steps between two checkpoints
LATE_S = 30.0  # scheduling delay allowed on top of the grace period


@dataclass
class Outcome:
    """Results of a soak."""

    kills: list[str] = field(default_factory=list)  # "moment of victim" of each kill
    missed: list[str] = field(default_factory=list)  # the moment did not come, or no victim was running; tried again
    partial_files: int = 0  # kills during a write, which left an incomplete checkpoint or mesh
    interrupted: int = 0  # kills of a job that had reported a step and had to resume from a checkpoint
    steps_lost: list[int] = field(default_factory=list)  # steps lost at each resume
    restart_s: list[float] = field(default_factory=list)  # from the start of a server to its first reply
    orphan_s: list[float] = field(default_factory=list)  # time that workers outlived their server
    waited: int = 0  # attempts that waited for the end of a stopped worker
    jobs: int = 0
    tickets: int = 0
    identical: int = 0
    faults: list[str] = field(default_factory=list)
    wall_s: float = 0.0


class Soak:
    """One state folder, its server, and a client that survives restarts."""

    def __init__(self, folder: Path, steps: int, seeds: tuple[int, ...]) -> None:
        self.state, self.steps, self.seeds = folder / "state", steps, seeds
        self.interval, self.options = (
            INTERVAL,
            ("--max-worker-failures", "100"),
        )  # steps between checkpoints; options of `dreamwright serve`
        self.model = save_tiny_model(folder / "model")
        self.server: subprocess.Popen[str] | None = None
        self.client: Client | None = None
        self.jobs: dict[str, JobSummary] = {}
        self.reached: dict[str, int] = {}  # by job, the highest step reported
        self.tickets: dict[str, str] = {}  # ticket -> job
        self.orphans: list[int] = []
        self.stale: set[tuple[Path, int]] = set()
        self.log = (folder / "server.log").open("ab")
        self.outcome = Outcome()

    # --- server

    def start(self) -> None:
        started = time.monotonic()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.server = subprocess.Popen(
            serve_command(self.state, *self.options),
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
        )
        line = self.server.stdout.readline()
        found = re.search(r"serves on (\S+)", line)
        if found is None:
            raise RuntimeError(f"the server printed {line!r} instead of its address; see {self.log.name}")
        self.client = Client(found.group(1))
        self.client.connect()
        self.client.subscribe()
        self.wait_until(lambda: self.client.state is ConnectionState.ONLINE)
        self.outcome.restart_s.append(time.monotonic() - started)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.server is not None:
            self.server.send_signal(how)
            self.server.wait(30)
            self.server.stdout.close()
            self.server = None
        if self.client is not None:
            self.client.close()
            self.client = None

    def workers(self) -> list[int]:
        """Process ids of the workers of the running server."""
        return [] if self.server is None else children(self.server.pid)

    def step(self, wait_s: float = 0.003) -> None:
        for event in self.client.tick():
            self.handle_event(event)
        time.sleep(wait_s)

    def handle_event(self, event: Any) -> None:
        for job in jobs_in(event):
            self.jobs[job.job] = job
            self.reached[job.job] = max(self.reached.get(job.job, 0), job.step)

    def wait_until(self, condition: Callable[[], bool], limit_s: float = 180.0) -> bool:
        end = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"the condition does not hold after {limit_s} s; jobs: {list(self.jobs.values())}")
            self.step()
        return True

    # --- jobs

    def submit(self, wait: bool = True) -> None:
        number = len(self.tickets)
        ticket = f"ticket-{number}"
        self.tickets[ticket] = ""
        self._send(ticket)
        if wait:
            self.wait_until(lambda: bool(self.tickets[ticket]))

    def _send(self, ticket: str) -> None:
        number = int(ticket.rpartition("-")[2])
        settings = dict(setting.split("=") for setting in QUICK)
        settings |= {
            "run.steps": str(self.steps),
            "run.checkpoint_interval": str(self.interval),
            "run.threads": "1",
            "mesh.threshold": "1.0",
            "run.max_restarts": "0",
            "run.preview_interval": "1000",
            # An untrained model moves the field at random. Rates that fall with the number of steps bound the total
            # motion, so that the field of a long run neither fills the bounding sphere nor becomes empty.
            "optimizer.learning_rate": str(0.2 / self.steps),
            "optimizer.final_rate": str(0.2 / self.steps),
        }

        def answered(reply: Any) -> None:
            if isinstance(reply, JobReply):
                known = self.tickets[ticket]
                if known and known != reply.job.job:
                    self.outcome.faults.append(f"{ticket} has two jobs: {known} and {reply.job.job}")
                self.tickets[ticket] = reply.job.job
                self.jobs[reply.job.job] = reply.job
            elif isinstance(reply, RequestError) and reply.code != "not-now":
                self.outcome.faults.append(f"{ticket} was refused: {reply.message}")

        request = SubmitJob(
            ticket, "a red mushroom", "", str(self.model), "draft", self.seeds[number % len(self.seeds)], settings
        )
        self.client.request(request, answered)

    def open_jobs(self) -> list[JobSummary]:
        return [job for job in self.jobs.values() if job.state not in {state.value for state in ENDED}]

    def is_a_job_running(self) -> bool:
        """Whether a running job has reported a step. Submits a new job when none is open."""
        if not self.open_jobs():
            self.submit()
        return any(job.state == "running" and job.step for job in self.jobs.values())

    def resubmit(self) -> None:
        """Submit every ticket again, as the add-on does for unanswered ones. A known ticket makes no second job."""
        for ticket in self.tickets:
            self._send(ticket)
        self.wait_until(lambda: all(self.tickets.values()))

    # --- moments

    def wait_for(self, moment: str, rng: random.Random) -> bool:
        """Wait for a moment; False if it does not come within some seconds. Submits new jobs as jobs end."""
        self.stale = self.partial_files()
        if moment == "submit":
            self.submit(wait=False)
            self.step(rng.uniform(0, 0.02))
            return True
        end = time.monotonic() + (rng.uniform(0.5, 10.0) if moment == "anywhere" else 25.0)
        before, target = self._newest(), rng.randint(1, self.steps - 1)
        while time.monotonic() < end:
            self.step(0.0002)
            if not self.open_jobs() and all(self.tickets.values()):
                self.submit(wait=False)
            if moment == "part" and self.partial_files("checkpoint*.part") - self.stale:
                return True
            if moment == "step" and any(job.state == "running" and job.step >= target for job in self.jobs.values()):
                return True
            if moment == "renamed" and self._newest() > before:
                return True
            if moment == "mesh" and any(
                self.jobs.get(p.parent.name) in self.open_jobs() for p in self.state.glob("jobs/*/mesh.dwm*")
            ):
                return True
        return moment == "anywhere"

    def partial_files(self, pattern: str = "*.part") -> set[tuple[Path, int]]:
        """Incomplete files with their modification times, to tell new ones from those of earlier kills."""
        found = set()
        for path in self.state.glob(f"jobs/*/**/{pattern}"):
            try:
                found.add((path, path.stat().st_mtime_ns))
            except OSError:
                continue  # it was renamed meanwhile
        return {(path, at) for path, at in found if path.name != "fence.part"}

    def _newest(self) -> float:
        return max(
            (p.stat().st_mtime for p in self.state.glob("jobs/*/checkpoints/checkpoint.safetensors")), default=0.0
        )

    def kill(self, victim: str, workers: list[int], rng: random.Random) -> None:
        pids = {"worker": workers, "both": [self.server.pid, *workers]}.get(victim, [self.server.pid])
        self.orphans = workers if victim in ("server", "orphan") else []
        if victim == "orphan":
            for pid in workers:
                os.kill(pid, signal.SIGSTOP)
        rng.shuffle(pids)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it has ended by itself
        if victim != "worker":
            self.stop()
        if victim == "server":
            self._watch_orphans()

    def release(self, attempts: dict[str, int]) -> None:
        """Check that no new attempt has started while a stopped worker holds the job; then continue the worker."""
        held = [
            name
            for name, job in self.jobs.items()
            if job.state == "running" and job.message.startswith("waiting for the end")
        ]
        for name in held:
            if len(read_attempts(self.state).get(name, ())) > attempts.get(name, 0):
                self.outcome.faults.append(f"job {name} was started while an earlier worker still held it")
        for pid in self.orphans:
            os.kill(pid, signal.SIGCONT)
        self._watch_orphans()

    def _watch_orphans(self) -> None:
        started = time.monotonic()
        while any(is_process_running(pid) for pid in self.orphans):
            if time.monotonic() - started > ORPHAN_GRACE_S + LATE_S:
                self.outcome.faults.append(f"workers {self.orphans} outlive their server")
                break
            time.sleep(0.02)
        if self.orphans:
            self.outcome.orphan_s.append(time.monotonic() - started)
        self.orphans = []

    # --- checks

    def check(self, expected: dict[int, bytes]) -> None:
        outcome = self.outcome
        self.wait_until(lambda: not self.open_jobs(), 600.0)
        outcome.tickets, outcome.jobs = len(self.tickets), len(self.jobs)
        if len(set(self.tickets.values())) != len(self.tickets) or set(self.tickets.values()) != set(self.jobs):
            outcome.faults.append(f"{len(self.tickets)} tickets, {len(self.jobs)} jobs")
        for job in self.jobs.values():
            if job.state != "succeeded":
                outcome.faults.append(f"job {job.job} {job.state}: {job.message}")
            elif self.fetch(job) != expected[job.seed]:
                outcome.faults.append(f"job {job.job} has a different mesh")
            else:
                outcome.identical += 1

    def fetch(self, job: JobSummary) -> bytes:
        arrived: list[Any] = []
        Download(self.client, job.job, "mesh", job.mesh_bytes, arrived.append).start()
        self.wait_until(lambda: bool(arrived))
        return arrived[0]
