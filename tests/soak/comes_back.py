# SPDX-License-Identifier: GPL-3.0-or-later
"""Artists who lose their connection, their server or both while they watch a job, and what they are handed on their return.

    python -m tests.soak.comes_back --returns 60 --seed 0 --folder runs/comes_back

Three watch the same jobs over encrypted cables of their own: the owner from two machines, and an admin. At moments drawn by
the seed a cable is cut or goes silent for a while, or the server is killed and started anew, or both. Every message is
written down as it comes from the wire and as the client hands it out, and judged on its own:

gap: after a snapshot the events' counts go up by one each, or another snapshot is asked for, which makes good for it.
old: nothing handed out has a lower `changed` of a job, or a lower step of a picture or of an attempt, than what was handed out before.
astray: once all is calm, each artist's view is what the server's list says.
"""

from __future__ import annotations

import argparse
import json
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
from tests.soak.flaky_tcp_proxy import LooseCable
from tests.soak.served import Served

MISHAPS = ("cut", "cut", "hush", "server", "both", "new socket")
STEPS = 400  # of a job: some twenty seconds
ENDED_STATES = {state.value for state in ENDED}


class OnTheWire(Client):
    """A client that writes down what came before it judges it."""

    gaps = healed = counted = 0
    _expected: int | None = None  # the count of the next event; None: a snapshot is on its way

    def _take(self, number: int, message: Any) -> None:
        pending = self._pending.get(number)
        is_snapshot = pending is not None and isinstance(pending.message, Subscribe) and isinstance(message, JobList)
        is_gap = False
        if not number and isinstance(message, (JobChanged, JobDeleted)) and self._expected is not None:
            self.counted += 1
            is_gap = message.count != self._expected
            self._expected = None if is_gap else self._expected + 1
        asked = self._subscription.snapshots_pending
        super()._take(number, message)
        if is_gap:
            self.gaps += 1
            self.healed += self._subscription.snapshots_pending > asked
        if is_snapshot:
            self._expected = 1
        if self._subscription.snapshots_pending:
            self._expected = None  # the server counts anew from the snapshot that is on its way

    def _open(self) -> None:
        self._expected = None
        super()._open()


@dataclass
class Seen:
    """What one artist was handed out."""

    name: str
    client: OnTheWire
    cable: LooseCable
    jobs: dict[str, JobSummary] = field(default_factory=dict)
    picture: dict[str, int] = field(default_factory=dict)  # the last step, by job
    old: list[str] = field(default_factory=list)
    handed: Counter[str] = field(default_factory=Counter)
    online: int = 0
    lost_at: float = 0.0
    back_s: list[float] = field(default_factory=list)  # from the mishap until it is online and has a snapshot

    def step(self) -> None:
        for event in self.client.tick():
            self.handed[type(event).__name__] += 1
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
                if event.step < self.picture.get(event.job, 0):
                    self.old.append(f"{self.name}: a picture of step {event.step} after {self.picture[event.job]}")
                self.picture[event.job] = event.step
            elif getattr(event, "state", None) is ConnectionState.ONLINE:
                self.online += 1

    def _learn(self, job: JobSummary) -> None:
        known = self.jobs.get(job.job)
        if known is None:
            return
        if job.changed < known.changed:
            self.old.append(f"{self.name}: change {job.changed} of {job.job} after {known.changed}")
        if job.step < known.step and (job.state, job.attempt) == (
            known.state,
            known.attempt,
        ):  # a restart goes on from a checkpoint
            self.old.append(f"{self.name}: step {job.step} of {job.job} after {known.step}")
        if known.state in ENDED_STATES and job.state != known.state:
            self.old.append(f"{self.name}: {job.job} is {job.state} after {known.state}")


class Soak:
    """A server, three artists, and one job after the other."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.served = Served(
            folder, ["anna"], ["keeper"], ["--max-worker-failures", "100"], module="tests.soak.ticking_server"
        ).start()
        self.artists = [
            self._comes(name, user)
            for name, user in (("anna", "anna"), ("anna elsewhere", "anna"), ("keeper", "keeper"))
        ]
        self.tickets = self.settled = 0
        self.mishaps: Counter[str] = Counter()
        self.faults: list[str] = []
        self.job = ""

    def _comes(self, name: str, user: str) -> Seen:
        cable = LooseCable(self.served.address)
        client = OnTheWire(cable.address, credentials=CurveCredentials(self.served.server_key, self.served.pairs[user]))
        client.connect()
        client.subscribe()
        return Seen(name, client, cable)

    def step(self) -> None:
        for artist in self.artists:
            artist.step()
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
                    f"it did not happen; {[(one.name, one.client.state.value, one.client.reason) for one in self.artists]}"
                )
            self.step()

    def keep_a_job_running(self) -> None:
        owner = self.artists[0]
        if self.job in owner.jobs and owner.jobs[self.job].state not in ENDED_STATES:
            return
        told: list[Any] = []
        self.tickets += 1
        owner.client.request(
            SubmitJob(f"t{self.tickets}", "a red mushroom", "", "starter", "draft", 0, {"run.steps": STEPS}),
            told.append,
        )
        self.wait_until(lambda: bool(told))
        if not isinstance(told[0], JobReply):
            raise RuntimeError(f"no job: {told[0]}")
        self.job = told[0].job.job
        self.wait_until(lambda: all(self.job in one.jobs and one.jobs[self.job].step for one in self.artists))
        for artist in self.artists:
            artist.client.subscribe(self.job)

    def mishap(self) -> None:
        """One of them, to one of the artists or to all."""
        what = self.dice.choice(MISHAPS)
        hit = self.artists if what in ("server", "both") else self.dice.sample(self.artists, self.dice.randint(1, 3))
        now = time.monotonic()
        for artist in hit:
            artist.lost_at = now
        self.mishaps[what] += len(hit)
        if what in ("cut", "both"):
            for artist in hit:
                artist.cable.cut()
        if what in ("server", "both"):
            self.served.stop(signal.SIGKILL)
            self.live(self.dice.uniform(0.0, 2.0))
            self.served.start()
        elif what == "hush":
            for artist in hit:
                artist.cable.hush(True)
            self.live(self.dice.uniform(0.1, 8.0))
            for artist in hit:
                artist.cable.hush(False)
        elif what == "new socket":
            for artist in hit:
                artist.client.connect()  # as after Disconnect and Connect
                artist.client.subscribe(self.job)
        if what in ("hush", "cut"):
            self.live(self.dice.uniform(0.0, 3.0))
            for artist in hit:
                artist.lost_at = 0.0  # a short silence costs no snapshot; that the views agree is what counts

    def agree(self) -> None:
        """Until every view is the server's, and stays the newest."""
        begun = time.monotonic()
        answers: dict[str, JobList] = {}

        def same() -> bool:
            # The list is asked for over each artist's own connection, so it is what was true after all that arrived before it.
            for artist in self.artists:
                if artist.name not in answers and artist.client.state is ConnectionState.ONLINE:
                    answers[artist.name] = JobList((), 0)
                    artist.client.request(ListJobs(), lambda reply, name=artist.name: compare(name, reply))
            return len(agreed) == len(self.artists)

        agreed: set[str] = set()

        def compare(name: str, reply: Any) -> None:
            artist = next(one for one in self.artists if one.name == name)
            del answers[name]
            if isinstance(reply, JobList):
                listed = {job.job: (job.state, job.step) for job in reply.jobs}
                viewed = {job.job: (job.state, job.step) for job in artist.jobs.values()}
                # Steps are told four times a second, so the list may be a little ahead of what was handed out.
                if set(listed) == set(viewed) and all(
                    viewed[job][0] == state and viewed[job][1] >= step - 40 for job, (state, step) in listed.items()
                ):
                    agreed.add(name)

        try:
            self.wait_until(same, 40.0)
            self.settled += 1
        except TimeoutError:
            left = {one.name for one in self.artists} - agreed
            self.faults.append(f"{left} do not see what the server says after {time.monotonic() - begun:.0f} s")

    def close(self) -> None:
        for artist in self.artists:
            artist.client.close()
            artist.cable.close()
        self.served.stop()


def soak(folder: Path, returns: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Mishaps until so many returns."""
    run = Soak(folder, seed)
    begun = time.monotonic()
    try:
        while sum(run.mishaps.values()) < returns:
            run.keep_a_job_running()
            run.live(run.dice.uniform(0.0, 1.5))
            run.mishap()
            run.agree()
            print(
                f"{sum(run.mishaps.values())} of {returns} returns, {dict(run.mishaps)}, old {sum(len(one.old) for one in run.artists)}",
                flush=True,
            )
        run.live(1.0)
    finally:
        run.close()
    told: dict[str, Any] = {
        "returns": dict(run.mishaps),
        "in all": sum(run.mishaps.values()),
        "jobs": run.tickets,
        "views that agreed": 3 * run.settled,
    }
    for artist in run.artists:
        client = artist.client
        told[artist.name] = {
            "handed out": dict(artist.handed),
            "events counted after snapshots": client.counted,
            "gaps on the wire": client.gaps,
            "of them made good by a snapshot": client.healed,
            "old": len(artist.old),
            "back after s (median, most)": [round(statistics.median(artist.back_s), 2), round(max(artist.back_s), 2)]
            if artist.back_s
            else [],
        }
        run.faults += artist.old
        if client.gaps != client.healed:
            run.faults.append(f"{artist.name}: {client.gaps} gaps, {client.healed} made good")
    run.faults += run.served.faults()
    told["s"] = round(time.monotonic() - begun)
    return told, run.faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--returns", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    told, faults = soak(options.folder, options.returns, options.seed)
    print(json.dumps(told, indent=1))
    print(f"{len(faults)} faults", *faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
