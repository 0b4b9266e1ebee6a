# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that lose their connection, their server or both while they watch a job, and the events they get afterwards.

    python -m tests.soak.reconnects --reconnects 60 --seed 0 --folder runs/reconnects

Three clients watch the same jobs, each through its own TCP proxy: two of the owner and one of an admin. At random
moments
a proxy closes or stalls its connections, the server is killed and restarted, or both. Checked for every message:

gap: event counts rise by one after a snapshot; after a gap the client requests another snapshot.
outdated: `changed` of a job, and the step of a preview or of an attempt, never decrease among delivered events.
diverged: after each fault, the jobs of every client equal the list of the server.
"""

from __future__ import annotations

import random
import signal
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamwright.shared.client import Client
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.job_states import ENDED
from dreamwright.shared.messages import (
    JobChanged,
    JobDeleted,
    JobList,
    JobReply,
    JobSummary,
    ListJobs,
    PreviewFrame,
    SubmitJob,
    Subscribe,
)
from tests.soak.command_line import print_results, soak_parser
from tests.soak.flaky_tcp_proxy import FlakyTcpProxy
from tests.soak.observed_server import ObservedServer

FAULTS = ("cut", "cut", "stall", "server", "both", "new socket")
STEPS = 400  # of a job: about twenty seconds
ENDED_STATES = {state.value for state in ENDED}


class GapCountingClient(Client):
    """A client that counts gaps in the messages it receives, before it handles them."""

    gaps = recovered = counted = 0
    _expected: int | None = None  # expected count of the next event; None while a snapshot is pending

    def _take(self, number: int, message: Any) -> None:
        pending = self._pending.get(number)
        is_snapshot = pending is not None and isinstance(pending.message, Subscribe) and isinstance(message, JobList)
        is_gap = False
        if not number and isinstance(message, (JobChanged, JobDeleted)) and self._expected is not None:
            self.counted += 1
            is_gap = message.count != self._expected
            self._expected = None if is_gap else self._expected + 1
        before = self._subscription.snapshots_pending
        super()._take(number, message)
        if is_gap:
            self.gaps += 1
            self.recovered += self._subscription.snapshots_pending > before
        if is_snapshot:
            self._expected = 1
        if self._subscription.snapshots_pending:
            self._expected = None  # the count restarts at the pending snapshot

    def _open(self) -> None:
        self._expected = None
        super()._open()


@dataclass
class DeliveredEvents:
    """The events that one client delivered."""

    name: str
    client: GapCountingClient
    proxy: FlakyTcpProxy
    jobs: dict[str, JobSummary] = field(default_factory=dict)
    preview_step: dict[str, int] = field(default_factory=dict)  # the last step, by job
    outdated: list[str] = field(default_factory=list)
    delivered: Counter[str] = field(default_factory=Counter)
    online: int = 0
    lost_at: float = 0.0
    back_s: list[float] = field(default_factory=list)  # from the fault until the client is online and has a snapshot

    def step(self) -> None:
        for event in self.client.tick():
            self.delivered[type(event).__name__] += 1
            if isinstance(event, JobList):
                for job in event.jobs:
                    self._learn(job)
                self.jobs = {job.job: job for job in event.jobs}
                if self.lost_at and self.client.state is ConnectionState.ONLINE:
                    self.back_s.append(time.monotonic() - self.lost_at)
                    self.lost_at = 0.0
            elif isinstance(event, JobChanged):
                self._learn(event.job)
                self.jobs[event.job.job] = event.job
            elif isinstance(event, JobDeleted):
                self.jobs.pop(event.job, None)
            elif isinstance(event, PreviewFrame):
                if event.step < self.preview_step.get(event.job, 0):
                    self.outdated.append(
                        f"{self.name}: a preview of step {event.step} after {self.preview_step[event.job]}"
                    )
                self.preview_step[event.job] = event.step
            elif getattr(event, "state", None) is ConnectionState.ONLINE:
                self.online += 1

    def _learn(self, job: JobSummary) -> None:
        known = self.jobs.get(job.job)
        if known is None:
            return
        if job.changed < known.changed:
            self.outdated.append(f"{self.name}: change {job.changed} of {job.job} after {known.changed}")
        if job.step < known.step and (job.state, job.attempt) == (
            known.state,
            known.attempt,
        ):  # a restart continues from a checkpoint
            self.outdated.append(f"{self.name}: step {job.step} of {job.job} after {known.step}")
        if known.state in ENDED_STATES and job.state != known.state:
            self.outdated.append(f"{self.name}: {job.job} is {job.state} after {known.state}")


class Soak:
    """A server, three clients and a sequence of jobs."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.server = ObservedServer(
            folder, ["anna"], ["admin"], ["--max-worker-failures", "100"], module="tests.soak.ticking_server"
        ).start()
        self.viewers = [
            self._connect(name, user)
            for name, user in (("anna", "anna"), ("anna, second machine", "anna"), ("admin", "admin"))
        ]
        self.tickets = self.settled = 0
        self.injected: Counter[str] = Counter()
        self.faults: list[str] = []
        self.job = ""

    def _connect(self, name: str, user: str) -> DeliveredEvents:
        proxy = FlakyTcpProxy(self.server.address)
        client = GapCountingClient(
            proxy.address, credentials=CurveCredentials(self.server.server_key, self.server.pairs[user])
        )
        client.connect()
        client.subscribe()
        return DeliveredEvents(name, client, proxy)

    def step(self) -> None:
        for viewer in self.viewers:
            viewer.step()
        time.sleep(0.002)

    def live(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.step()

    def wait_until(self, happened: Any, limit_s: float = 90.0) -> None:
        end = time.monotonic() + limit_s
        while not happened():
            if time.monotonic() > end:
                raise TimeoutError(
                    f"the condition does not hold after {limit_s} s; clients: "
                    f"{[(one.name, one.client.state.value, one.client.reason) for one in self.viewers]}"
                )
            self.step()

    def keep_a_job_running(self) -> None:
        owner = self.viewers[0]
        if self.job in owner.jobs and owner.jobs[self.job].state not in ENDED_STATES:
            return
        replies: list[Any] = []
        self.tickets += 1
        owner.client.request(
            SubmitJob(f"t{self.tickets}", "a red mushroom", "", "starter", "draft", 0, {"run.steps": STEPS}),
            replies.append,
        )
        self.wait_until(lambda: bool(replies))
        if not isinstance(replies[0], JobReply):
            raise RuntimeError(f"the submit was refused: {replies[0]}")
        self.job = replies[0].job.job
        self.wait_until(lambda: all(self.job in one.jobs and one.jobs[self.job].step for one in self.viewers))
        for viewer in self.viewers:
            viewer.client.subscribe(self.job)

    def inject_fault(self) -> None:
        """Inject a random fault for one or more clients."""
        what = self.rng.choice(FAULTS)
        hit = self.viewers if what in ("server", "both") else self.rng.sample(self.viewers, self.rng.randint(1, 3))
        now = time.monotonic()
        for viewer in hit:
            viewer.lost_at = now
        self.injected[what] += len(hit)
        if what in ("cut", "both"):
            for viewer in hit:
                viewer.proxy.cut()
        if what in ("server", "both"):
            self.server.stop(signal.SIGKILL)
            self.live(self.rng.uniform(0.0, 2.0))
            self.server.start()
        elif what == "stall":
            for viewer in hit:
                viewer.proxy.set_stalled(True)
            self.live(self.rng.uniform(0.1, 8.0))
            for viewer in hit:
                viewer.proxy.set_stalled(False)
        elif what == "new socket":
            for viewer in hit:
                viewer.client.connect()  # as the Disconnect and Connect buttons do
                viewer.client.subscribe(self.job)
        if what in ("stall", "cut"):
            self.live(self.rng.uniform(0.0, 3.0))
            for viewer in hit:
                viewer.lost_at = 0.0  # a short stall causes no snapshot, so there is no recovery time to measure

    def wait_for_agreement(self) -> None:
        """Wait until the jobs of every client equal the list of the server."""
        started = time.monotonic()
        answers: dict[str, JobList] = {}

        def same() -> bool:
            # Each client requests the list on its own connection, so the reply is newer than all events before it.
            for viewer in self.viewers:
                if viewer.name not in answers and viewer.client.state is ConnectionState.ONLINE:
                    answers[viewer.name] = JobList((), 0)
                    viewer.client.request(ListJobs(), lambda reply, name=viewer.name: compare(name, reply))
            return len(agreed) == len(self.viewers)

        agreed: set[str] = set()

        def compare(name: str, reply: Any) -> None:
            viewer = next(one for one in self.viewers if one.name == name)
            del answers[name]
            if isinstance(reply, JobList):
                listed = {job.job: (job.state, job.step) for job in reply.jobs}
                viewed = {job.job: (job.state, job.step) for job in viewer.jobs.values()}
                # Progress is sent four times a second and a step takes 0.05 s, so a delivered step may lag behind the
                # list.
                if set(listed) == set(viewed) and all(
                    viewed[job][0] == state and viewed[job][1] >= step - 40 for job, (state, step) in listed.items()
                ):
                    agreed.add(name)

        try:
            self.wait_until(same, 40.0)
            self.settled += 1
        except TimeoutError:
            left = {one.name for one in self.viewers} - agreed
            self.faults.append(f"{left} differ from the server's list after {time.monotonic() - started:.0f} s")

    def close(self) -> None:
        for viewer in self.viewers:
            viewer.client.close()
            viewer.proxy.close()
        self.server.stop()


def soak(folder: Path, reconnects: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Inject faults until a number of reconnects is reached."""
    run = Soak(folder, seed)
    started = time.monotonic()
    try:
        while sum(run.injected.values()) < reconnects:
            run.keep_a_job_running()
            run.live(run.rng.uniform(0.0, 1.5))
            run.inject_fault()
            run.wait_for_agreement()
            print(
                f"{sum(run.injected.values())} of {reconnects} reconnects, {dict(run.injected)}, outdated "
                f"{sum(len(one.outdated) for one in run.viewers)}",
                flush=True,
            )
        run.live(1.0)
    finally:
        run.close()
    figures: dict[str, Any] = {
        "reconnects": dict(run.injected),
        "total": sum(run.injected.values()),
        "jobs": run.tickets,
        "clients that agreed": 3 * run.settled,
    }
    for viewer in run.viewers:
        client = viewer.client
        figures[viewer.name] = {
            "delivered": dict(viewer.delivered),
            "events counted after snapshots": client.counted,
            "gaps": client.gaps,
            "gaps recovered by a snapshot": client.recovered,
            "outdated": len(viewer.outdated),
            "recovered after s (median, max)": [
                round(statistics.median(viewer.back_s), 2),
                round(max(viewer.back_s), 2),
            ]
            if viewer.back_s
            else [],
        }
        run.faults += viewer.outdated
        if client.gaps != client.recovered:
            run.faults.append(f"{viewer.name}: {client.gaps} gaps, {client.recovered} recovered")
    run.faults += run.server.faults()
    figures["s"] = round(time.monotonic() - started)
    return figures, run.faults


def main() -> int:
    parser = soak_parser(__doc__)
    parser.add_argument("--reconnects", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures, faults = soak(options.folder, options.reconnects, options.seed)
    return print_results(figures, faults)


if __name__ == "__main__":
    sys.exit(main())
