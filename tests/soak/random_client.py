# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that sends random requests, checks the replies and writes every action to a journal."""

from __future__ import annotations

import hashlib
import json
import random
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
)
from dreamwright.shared.transfer import Download

SEEDS, PROMPT = 4, "a red mushroom"
STEPS = (6, 12, 24)
ENDED_STATES = {state.value for state in ENDED}
# Error codes expected from races with other clients of the same user or with the server; any other is a fault.
RACES = {"PauseJob": {"not-now"}, "ResumeJob": {"not-now"}, "SetPriority": {"not-now"}, "DeleteJob": {"not-now"}}


class Journal:
    """One line of JSON for each event, flushed at once so that SIGKILL loses no event."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def write(self, what: str, **facts: Any) -> None:
        self._file.write(json.dumps({"at": round(time.time(), 3), "what": what, **facts}) + "\n")


@dataclass
class SubmittedJob:
    """A job of one client, by its ticket."""

    ticket: str
    seed: int
    steps: int
    job: str = ""
    state: str = "submitted"
    fetched: bool = False
    deleting: bool = False  # a DeleteJob was sent
    will_cancel: bool = False  # cancelled at a random moment
    pauses: int = 2  # pauses still allowed
    summary: JobSummary | None = field(default=None, repr=False)


class RandomClient:
    """One connection that sends random requests and checks the replies."""

    def __init__(
        self,
        setup: dict[str, Any],
        name: str,
        user: str,
        journal: Journal,
        past: list[dict[str, Any]],
        rng: random.Random,
    ) -> None:
        pair = key_pair_from_map(setup["pairs"][user])
        self.name, self._user, self._model, self._journal, self._rng = name, user, setup["model"], journal, rng
        self._pace_s, self._settings = setup["pace_s"], setup["settings"]
        self.client = Client(
            setup["address"], software="soak", credentials=CurveCredentials(parse_key(setup["server"]), pair)
        )
        self.client.connect()
        self.client.subscribe()
        self.own: dict[str, SubmittedJob] = {}
        self._watched, self._other_job = "", ""
        self._next = time.monotonic() + rng.uniform(0, self._pace_s)
        self._offline_until = 0.0
        self._download: Download | None = None
        self.stopped_until = 0.0  # end of the last stop of this process; requests sent before it have no valid latency
        self._is_resent = False  # online since the last disconnect, with unanswered submits sent again
        for event in past:
            self._replay(event)

    def _replay(self, event: dict[str, Any]) -> None:
        if event["what"] == "planned":
            self.own[event["ticket"]] = SubmittedJob(event["ticket"], event["seed"], event["steps"])
        own = self.own.get(event["ticket"])
        if own is None:
            return
        if event["what"] == "answered":
            own.job = event["job"]
        elif event["what"] == "fetched":
            own.fetched = True
        elif event["what"] == "delete requested":
            own.deleting = True  # the delete may not have arrived; sending it again is harmless
        elif event["what"] == "deleted":
            del self.own[own.ticket]

    # --- main loop

    def step(self, draining: bool) -> None:
        now = time.monotonic()
        if self._offline_until:
            if now < self._offline_until and not draining:
                return
            self._offline_until = 0.0
            self.client.connect()
            self.client.subscribe(self._watched)
        answered = {
            own.job for own in self.own.values() if own.job and not own.deleting
        }  # known before any list of this tick was made
        for event in self.client.tick():
            self._handle_event(event, answered)
        if self.client.state is ConnectionState.ONLINE and not self._is_resent:
            self._is_resent = True
            for own in list(self.own.values()):
                if not own.job:
                    self._send_submit(own)  # a known ticket makes no second job
        if now >= self._next and self.client.state is ConnectionState.ONLINE:
            self._next = now + self._rng.expovariate(1.0 / self._pace_s)
            (self._drain if draining else self._send_random)()

    def _handle_event(self, event: Any, answered: set[str]) -> None:
        if isinstance(event, JobList):
            jobs, known = event.jobs, {job.job for job in event.jobs}
            going = {own.job for own in self.own.values() if not own.deleting}
            for job in (answered & going) - known:
                self._fault(f"job {job} is not in the list of {len(known)}")
        elif isinstance(event, JobChanged):
            jobs = (event.job,)
        elif isinstance(event, JobDeleted):
            return
        elif isinstance(event, PreviewFrame):
            self._journal.write("preview", job=event.job)
            return
        else:
            self._journal.write("link", client=self.name, link=event.state.value, reason=event.reason)
            if event.state in (ConnectionState.UNAUTHORIZED, ConnectionState.INCOMPATIBLE):
                self._fault(event.reason)
            return
        by_job = {own.job: own for own in self.own.values() if own.job}
        for job in jobs:
            if job.job in by_job:
                self._update_job(by_job[job.job], job)
            elif job.state == "running":
                self._other_job = job.job

    def _update_job(self, own: SubmittedJob, job: JobSummary) -> None:
        if own.summary is not None and job.changed < own.summary.changed:
            return  # a newer event arrived before this reply
        if own.state in ENDED_STATES and job.state != own.state:
            self._fault(f"job {own.job} was {own.state} and is {job.state}")
        if job.state in ENDED_STATES and own.state != job.state:
            self._journal.write(
                "ended", ticket=own.ticket, job=own.job, state=job.state, message=job.message, attempt=job.attempt
            )
        own.summary, own.state = job, job.state

    # --- requests

    def _request(
        self, message: Any, on_reply: Callable[[Any], None] = lambda reply: None, allowed: frozenset[str] = frozenset()
    ) -> None:
        kind, began = type(message).__name__, time.monotonic()

        def answered(reply: Any) -> None:
            if began > self.stopped_until:
                self._journal.write("replied", kind=kind, ms=round(1000 * (time.monotonic() - began), 1))
            if isinstance(reply, RequestTimeout):
                self._journal.write("unanswered", kind=kind, client=self.name)
            elif isinstance(reply, RequestError):
                self._journal.write("refused", kind=kind, code=reply.code)
                if reply.code not in allowed | RACES.get(kind, set()):
                    self._fault(f"{kind} was refused ({reply.code}): {reply.message}")
            on_reply(reply)

        self.client.request(message, answered)

    def _fault(self, message: str) -> None:
        self._journal.write("fault", client=self.name, message=message)

    def _send_submit(self, own: SubmittedJob) -> None:
        def answered(reply: Any) -> None:
            if isinstance(reply, JobReply):
                if own.job and own.job != reply.job.job:
                    self._fault(f"{own.ticket} has two jobs: {own.job} and {reply.job.job}")
                own.job = reply.job.job
                self._journal.write("answered", ticket=own.ticket, job=own.job)
                self._update_job(own, reply.job)

        settings = {**self._settings, "run.steps": str(own.steps)}
        self._request(SubmitJob(own.ticket, PROMPT, "", self._model, "draft", own.seed, settings), answered)

    def _submit(self) -> None:
        ticket = f"{self.name}-{time.time_ns():x}"
        own = SubmittedJob(
            ticket, self._rng.randrange(SEEDS), self._rng.choice(STEPS), will_cancel=self._rng.random() < 0.15
        )
        self._journal.write("planned", client=self.name, user=self._user, ticket=ticket, seed=own.seed, steps=own.steps)
        self.own[ticket] = own
        self._send_submit(own)
        if self._rng.random() < 0.2:
            self._send_submit(own)  # as after a lost reply

    def _update(self, own: SubmittedJob) -> Callable[[Any], None]:
        return lambda reply: self._update_job(own, reply.job) if isinstance(reply, JobReply) else None

    def _send_random(self) -> None:
        """Send one random request that the present states allow."""
        known = [own for own in self.own.values() if own.summary is not None and not own.deleting]
        going = [own for own in known if own.state not in ENDED_STATES]
        paused = [own for own in going if own.state == "paused"]
        wanted = [own for own in known if own.state in ENDED_STATES and own.summary.mesh_bytes and not own.fetched]
        done = [own for own in known if own.state in ENDED_STATES and (own.fetched or not own.summary.mesh_bytes)]
        deleting = [own for own in self.own.values() if own.deleting]
        may: list[tuple[float, Callable[[], Any]]] = [
            (8, lambda: self._request(ListJobs(0, 50))),
            (2, lambda: self._request(GetCapabilities())),
            (3, self._disconnect),
            (8, lambda: self._watch(going)),
        ]
        if not going and all(own.job for own in self.own.values()):
            may.append((40, self._submit))
        if deleting:
            may.append((20, lambda: self._delete(deleting[0])))
        if paused:
            may.append((20, lambda: self._request(ResumeJob(paused[0].job), self._update(paused[0]))))
        if wanted:
            may.append((30, lambda: self._fetch(self._rng.choice(wanted))))
        if len(done) > 1:
            may.append((30, lambda: self._delete(self._rng.choice(done))))
        if done:
            own = self._rng.choice(done)
            may.append((2, lambda: self._request(PinJob(own.job, not own.summary.pinned), self._update(own))))
        if going:
            first, update = going[0].job, self._update(going[0])
            if going[0].pauses and not paused:
                may.append((4, lambda: self._pause(going[0])))
            if going[0].will_cancel:
                may.append((2, lambda: self._request(CancelJob(first), update)))
            may.append((4, lambda: self._request(SetPriority(first, self._rng.randint(-3, 0)), update)))
        self._rng.choices([act for _, act in may], [weight for weight, _ in may])[0]()

    def _pause(self, own: SubmittedJob) -> None:
        own.pauses -= 1
        self._request(PauseJob(own.job), self._update(own))

    def _watch(self, going: list[SubmittedJob]) -> None:
        self._watched = going[0].job if going else self._other_job
        self.client.subscribe(self._watched)

    def _disconnect(self) -> None:
        """Disconnect for a random time. Unanswered submits are sent again after the reconnect."""
        self._journal.write("disconnected", client=self.name)
        if self._download is not None:
            self._download.cancel()
            self._download = None
        self.client.close()
        self._is_resent = False
        self._offline_until = time.monotonic() + self._rng.uniform(0.0, 3 * self._pace_s)

    def _fetch(self, own: SubmittedJob) -> None:
        if self._download is not None:
            return

        def ended(result: Any) -> None:
            self._download = None
            if isinstance(result, RequestTimeout):
                self._journal.write("unanswered", kind="Download", client=self.name)
            elif isinstance(result, RequestError):
                self._fault(f"the mesh of {own.job} was refused: {result.message}")
            else:
                sha = hashlib.sha256(result).hexdigest()
                if sha != own.summary.mesh_sha256:
                    self._fault(f"the mesh of {own.job} has another hash than the job summary")
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

    def _delete(self, own: SubmittedJob) -> None:
        # A delete whose connection was lost may have been done; the client sends it again by itself.
        allowed = frozenset({"no-such-job"})
        own.deleting = True
        self._journal.write("delete requested", ticket=own.ticket, job=own.job)

        def answered(reply: Any) -> None:
            if not isinstance(reply, RequestError) or reply.code in allowed:
                self._journal.write("deleted", ticket=own.ticket, job=own.job)
                self.own.pop(own.ticket, None)

        self._request(DeleteJob(own.job), answered, allowed)

    def _drain(self) -> None:
        """Submit nothing new. Resume paused jobs, cancel some queued ones, and fetch the meshes."""
        self._next = time.monotonic() + 0.5
        for own in self.own.values():
            if own.deleting:
                continue
            if own.state == "paused":
                self._request(ResumeJob(own.job), self._update(own))
            elif own.state == "queued" and self._rng.random() < 0.1:
                self._request(CancelJob(own.job), self._update(own))
            elif own.state in ENDED_STATES and own.summary.mesh_bytes and not own.fetched:
                self._fetch(own)

    @property
    def is_drained(self) -> bool:
        left = [own for own in self.own.values() if not own.deleting]
        return not self._offline_until and all(
            own.job and own.state in ENDED_STATES and (own.fetched or not own.summary.mesh_bytes) for own in left
        )
