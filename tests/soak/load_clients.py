# SPDX-License-Identifier: GPL-3.0-or-later
"""Some artists in one process who never rest: python -m tests.soak.load_clients FOLDER NUMBER, told the rest on stdin.

Whatever they do goes into a journal first, so that who is killed and started again knows what was asked for.
"""

from __future__ import annotations

import hashlib
import json
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamwright.shared.client import Client
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.credentials import key_pair_from_map, parse_key
from dreamwright.shared.errors import RequestError, RequestTimeout
from dreamwright.shared.job_states import ENDED
from dreamwright.shared.messages import (
    CancelJob,
    DeleteJob,
    GetCapabilities,
    JobChanged,
    JobDeleted,
    JobList,
    JobReply,
    JobSummary,
    ListJobs,
    PauseJob,
    PinJob,
    PreviewFrame,
    ResumeJob,
    SetPriority,
    SubmitJob,
)  # fmt: skip
from dreamwright.shared.transfer import Download

SEEDS, PROMPT = 4, "a red mushroom"
STEPS = (6, 12, 24)
STALL_S = 1.0  # between two turns of this process: it was stopped
ENDED_STATES = {state.value for state in ENDED}
# What a race with another of the same user, or with the server, may answer; anything else is a fault.
RACES = {"PauseJob": {"not-now"}, "ResumeJob": {"not-now"}, "SetPriority": {"not-now"}, "DeleteJob": {"not-now"}}


class Journal:
    """A line an event, flushed at once: a SIGKILL loses nothing that was written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def write(self, what: str, **facts: Any) -> None:
        self._file.write(json.dumps({"at": round(time.time(), 3), "what": what, **facts}) + "\n")


@dataclass
class Own:
    """A job of one artist, by its ticket."""

    ticket: str
    seed: int
    steps: int
    job: str = ""
    state: str = "asked"
    fetched: bool = False
    leaving: bool = False  # a Forget was sent
    doomed: bool = False  # to be cancelled at some moment
    pauses: int = 2  # that it still gets
    summary: JobSummary | None = field(default=None, repr=False)


class Artist:
    """One connection, what it asks for, and what it holds the server to."""

    def __init__(
        self,
        told: dict[str, Any],
        name: str,
        user: str,
        journal: Journal,
        past: list[dict[str, Any]],
        dice: random.Random,
    ) -> None:
        pair = key_pair_from_map(told["pairs"][user])
        self.name, self._user, self._model, self._journal, self._dice = name, user, told["model"], journal, dice
        self._pace_s, self._settings = told["pace_s"], told["settings"]
        self.client = Client(
            told["address"], software="soak", credentials=CurveCredentials(parse_key(told["server"]), pair)
        )
        self.client.connect()
        self.client.subscribe()
        self.own: dict[str, Own] = {}
        self._watched, self._others = "", ""
        self._next = time.monotonic() + dice.uniform(0, self._pace_s)
        self._away_until = 0.0
        self._download: Download | None = None
        self.stood_still = (
            0.0  # when this process last went on after a stop: what was asked before took as long as that
        )
        self._is_back = False  # online since it last went away, with what was not answered asked again
        for event in past:
            self._recall(event)

    def _recall(self, event: dict[str, Any]) -> None:
        if event["what"] == "intends":
            self.own[event["ticket"]] = Own(event["ticket"], event["seed"], event["steps"])
        own = self.own.get(event["ticket"])
        if own is None:
            return
        if event["what"] == "answered":
            own.job = event["job"]
        elif event["what"] == "fetched":
            own.fetched = True
        elif event["what"] == "forgets":
            own.leaving = True  # it is not known whether that came about; asking again does no harm
        elif event["what"] == "forgotten":
            del self.own[own.ticket]

    # --- turns

    def step(self, draining: bool) -> None:
        now = time.monotonic()
        if self._away_until:
            if now < self._away_until and not draining:
                return
            self._away_until = 0.0
            self.client.connect()
            self.client.subscribe(self._watched)
        answered = {
            own.job for own in self.own.values() if own.job and not own.leaving
        }  # before any list of this turn was made
        for event in self.client.tick():
            self._take(event, answered)
        if self.client.state is ConnectionState.ONLINE and not self._is_back:
            self._is_back = True
            for own in list(self.own.values()):
                if not own.job:
                    self._send_submit(own)  # again: a known ticket makes no new job
        if now >= self._next and self.client.state is ConnectionState.ONLINE:
            self._next = now + self._dice.expovariate(1.0 / self._pace_s)
            (self._drain if draining else self._act)()

    def _take(self, event: Any, answered: set[str]) -> None:
        if isinstance(event, JobList):
            jobs, known = event.jobs, {job.job for job in event.jobs}
            going = {own.job for own in self.own.values() if not own.leaving}
            for job in (answered & going) - known:
                self._fault(f"job {job} is not in the list of {len(known)}")
        elif isinstance(event, JobChanged):
            jobs = (event.job,)
        elif isinstance(event, JobDeleted):
            return
        elif isinstance(event, PreviewFrame):
            self._journal.write("picture", job=event.job)
            return
        else:
            self._journal.write("link", artist=self.name, link=event.state.value, reason=event.reason)
            if event.state in (ConnectionState.UNAUTHORIZED, ConnectionState.INCOMPATIBLE):
                self._fault(event.reason)
            return
        by_job = {own.job: own for own in self.own.values() if own.job}
        for job in jobs:
            if job.job in by_job:
                self._learn(by_job[job.job], job)
            elif job.state == "running":
                self._others = job.job

    def _learn(self, own: Own, job: JobSummary) -> None:
        if own.summary is not None and job.changed < own.summary.changed:
            return  # an answer that a newer event has overtaken
        if own.state in ENDED_STATES and job.state != own.state:
            self._fault(f"job {own.job} was {own.state} and is {job.state}")
        if job.state in ENDED_STATES and own.state != job.state:
            self._journal.write(
                "ended", ticket=own.ticket, job=own.job, state=job.state, message=job.message, attempt=job.attempt
            )
        own.summary, own.state = job, job.state

    # --- requests

    def _ask(
        self, message: Any, on_reply: Callable[[Any], None] = lambda reply: None, allowed: frozenset[str] = frozenset()
    ) -> None:
        kind, began = type(message).__name__, time.monotonic()

        def answered(reply: Any) -> None:
            if began > self.stood_still:
                self._journal.write("asked", kind=kind, ms=round(1000 * (time.monotonic() - began), 1))
            if isinstance(reply, RequestTimeout):
                self._journal.write("unanswered", kind=kind, artist=self.name)
            elif isinstance(reply, RequestError):
                self._journal.write("refused", kind=kind, code=reply.code)
                if reply.code not in allowed | RACES.get(kind, set()):
                    self._fault(f"{kind} was refused ({reply.code}): {reply.message}")
            on_reply(reply)

        self.client.request(message, answered)

    def _fault(self, words: str) -> None:
        self._journal.write("fault", artist=self.name, words=words)

    def _send_submit(self, own: Own) -> None:
        def answered(reply: Any) -> None:
            if isinstance(reply, JobReply):
                if own.job and own.job != reply.job.job:
                    self._fault(f"{own.ticket} is two jobs: {own.job} and {reply.job.job}")
                own.job = reply.job.job
                self._journal.write("answered", ticket=own.ticket, job=own.job)
                self._learn(own, reply.job)

        settings = {**self._settings, "run.steps": str(own.steps)}
        self._ask(SubmitJob(own.ticket, PROMPT, "", self._model, "draft", own.seed, settings), answered)

    def _submit(self) -> None:
        ticket = f"{self.name}-{time.time_ns():x}"
        own = Own(ticket, self._dice.randrange(SEEDS), self._dice.choice(STEPS), doomed=self._dice.random() < 0.15)
        self._journal.write("intends", artist=self.name, user=self._user, ticket=ticket, seed=own.seed, steps=own.steps)
        self.own[ticket] = own
        self._send_submit(own)
        if self._dice.random() < 0.2:
            self._send_submit(own)  # as after a lost reply

    def _update(self, own: Own) -> Callable[[Any], None]:
        return lambda reply: self._learn(own, reply.job) if isinstance(reply, JobReply) else None

    def _act(self) -> None:
        """One thing that an artist may do now."""
        known = [own for own in self.own.values() if own.summary is not None and not own.leaving]
        going = [own for own in known if own.state not in ENDED_STATES]
        paused = [own for own in going if own.state == "paused"]
        wanted = [own for own in known if own.state in ENDED_STATES and own.summary.mesh_bytes and not own.fetched]
        done = [own for own in known if own.state in ENDED_STATES and (own.fetched or not own.summary.mesh_bytes)]
        leaving = [own for own in self.own.values() if own.leaving]
        may: list[tuple[float, Callable[[], Any]]] = [
            (8, lambda: self._ask(ListJobs(0, 50))), (2, lambda: self._ask(GetCapabilities())), (3, self._leave), (8, lambda: self._watch(going)),
        ]  # fmt: skip
        if not going and all(own.job for own in self.own.values()):
            may.append((40, self._submit))
        if leaving:
            may.append((20, lambda: self._forget(leaving[0])))
        if paused:
            may.append((20, lambda: self._ask(ResumeJob(paused[0].job), self._update(paused[0]))))
        if wanted:
            may.append((30, lambda: self._fetch(self._dice.choice(wanted))))
        if len(done) > 1:
            may.append((30, lambda: self._forget(self._dice.choice(done))))
        if done:
            own = self._dice.choice(done)
            may.append((2, lambda: self._ask(PinJob(own.job, not own.summary.pinned), self._update(own))))
        if going:
            first, update = going[0].job, self._update(going[0])
            if going[0].pauses and not paused:
                may.append((4, lambda: self._pause(going[0])))
            if going[0].doomed:
                may.append((2, lambda: self._ask(CancelJob(first), update)))
            may.append((4, lambda: self._ask(SetPriority(first, self._dice.randint(-3, 0)), update)))
        self._dice.choices([act for _, act in may], [weight for weight, _ in may])[0]()

    def _pause(self, own: Own) -> None:
        own.pauses -= 1
        self._ask(PauseJob(own.job), self._update(own))

    def _watch(self, going: list[Own]) -> None:
        self._watched = going[0].job if going else self._others
        self.client.subscribe(self._watched)

    def _leave(self) -> None:
        """Away without a word; what was asked and not answered is asked again on the return."""
        self._journal.write("leaves", artist=self.name)
        if self._download is not None:
            self._download.cancel()
            self._download = None
        self.client.close()
        self._is_back = False
        self._away_until = time.monotonic() + self._dice.uniform(0.0, 3 * self._pace_s)

    def _fetch(self, own: Own) -> None:
        if self._download is not None:
            return

        def ended(result: Any) -> None:
            self._download = None
            if isinstance(result, RequestTimeout):
                self._journal.write("unanswered", kind="Download", artist=self.name)
            elif isinstance(result, RequestError):
                self._fault(f"the mesh of {own.job} was refused: {result.message}")
            else:
                sha = hashlib.sha256(result).hexdigest()
                if sha != own.summary.mesh_sha256:
                    self._fault(f"the mesh of {own.job} has another hash than was told")
                own.fetched = True
                self._journal.write(
                    "fetched",
                    ticket=own.ticket,
                    job=own.job,
                    state=own.state,
                    seed=own.seed,
                    steps=own.steps,
                    sha=sha,
                    size=len(result),
                )

        self._download = Download(self.client, own.job, "mesh", own.summary.mesh_bytes, ended)
        self._download.start()

    def _forget(self, own: Own) -> None:
        # Of one that was asked for and then hung up on, it is not known whether it came about; the client asks again by itself.
        allowed = frozenset({"no-such-job"})
        own.leaving = True
        self._journal.write("forgets", ticket=own.ticket, job=own.job)

        def answered(reply: Any) -> None:
            if not isinstance(reply, RequestError) or reply.code in allowed:
                self._journal.write("forgotten", ticket=own.ticket, job=own.job)
                self.own.pop(own.ticket, None)

        self._ask(DeleteJob(own.job), answered, allowed)

    def _drain(self) -> None:
        """Ask for nothing new; let all end, and fetch what has a mesh."""
        self._next = time.monotonic() + 0.5
        for own in self.own.values():
            if own.leaving:
                continue
            if own.state == "paused":
                self._ask(ResumeJob(own.job), self._update(own))
            elif own.state == "queued" and self._dice.random() < 0.1:
                self._ask(CancelJob(own.job), self._update(own))
            elif own.state in ENDED_STATES and own.summary.mesh_bytes and not own.fetched:
                self._fetch(own)

    @property
    def is_drained(self) -> bool:
        left = [own for own in self.own.values() if not own.leaving]
        return not self._away_until and all(
            own.job and own.state in ENDED_STATES and (own.fetched or not own.summary.mesh_bytes) for own in left
        )


def main() -> None:
    """Act until SIGTERM; then let all jobs end, say so, and go."""
    draining: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: draining.append(number))
    print("ready", flush=True)
    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    told = json.loads(sys.stdin.readline())
    path = folder / f"artists-{number}.jsonl"
    past = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []
    journal = Journal(path)
    journal.write("starts", number=number)
    dice = random.Random(f"{told['seed']}/{number}/{len(past)}")
    artists = []
    for name, user in told["artists"]:
        artists.append(
            Artist(
                told,
                name,
                user,
                journal,
                [event for event in past if event.get("ticket", "").startswith(f"{name}-")],
                dice,
            )
        )
    last = time.monotonic()
    while not (draining and all(artist.is_drained for artist in artists)):
        now = time.monotonic()
        for artist in artists:
            if now - last > STALL_S:
                artist.stood_still = now
            artist.step(bool(draining))
        last = now
        time.sleep(0.01)
    for artist in artists:
        artist.client.close()
    journal.write("ends", number=number)


if __name__ == "__main__":
    main()
