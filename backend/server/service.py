# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's decisions: what each request does to the ledger, and what the workers' reports do to it.

Knows no sockets: the front door brings requests and carries answers.
"""

from __future__ import annotations

import logging
import shutil
import time
from typing import Any, Callable

from dreamwright.backend.errors import DreamwrightError
from dreamwright.backend.server.audience import Audience
from dreamwright.backend.server.foreman import Died, Foreman
from dreamwright.backend.server.ledger import Entry, Ledger
from dreamwright.backend.server.orders import Ended, Noted, Pictured, Stepped
from dreamwright.backend.server.requests import capabilities, check_submission
from dreamwright.backend.server.worker import MESH_FILE, file_hash
from dreamwright.shared import limits
from dreamwright.shared.faults import Refused
from dreamwright.shared.messages import (
    AskCapabilities,
    Cancel,
    Chunk,
    Done,
    Fetch,
    Forget,
    Hello,
    JobList,
    JobReply,
    ListJobs,
    Pause,
    PreviewFrame,
    Resume,
    Seen,
    Submit,
    Subscribe,
    Welcome,
)
from dreamwright.shared.states import ENDED, JobState

log = logging.getLogger(__name__)

ATTEMPTS = 3  # runs of a job that may end in a dead worker
QUEUE = 100  # waiting jobs, all users together
TELL_S = 0.25  # shortest time between two tellings of a running job's progress


class Service:
    """Requests in, replies out; `work` hands out jobs and takes reports."""

    def __init__(
        self,
        ledger: Ledger,
        foreman: Foreman,
        audience: Audience,
        devices: tuple[str, ...],
        software: str,
        epoch: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ledger, self._foreman, self._audience = ledger, foreman, audience
        self._clock = clock
        self._told: dict[str, float] = {}  # by job, when its progress was last told
        self._untold: set[str] = set()
        self._verbs: dict[type[Any], Callable[[Any, str, bytes], Any]] = {
            Hello: lambda request, owner, route: Welcome(software, epoch),
            AskCapabilities: lambda request, owner, route: capabilities(devices),
            Submit: self._submit,
            ListJobs: self._list,
            Subscribe: self._subscribe,
            Cancel: self._cancel,
            Pause: self._pause,
            Resume: self._resume,
            Forget: self._forget,
            Fetch: self._fetch,
        }
        self._recover()

    def answer(self, request: Any, owner: str, route: bytes) -> Any:
        """The reply to a request of `owner`; None for those that have none. Raises Refused."""
        self._audience.heard(route)
        if isinstance(request, Seen):
            self._audience.seen(route, request.count)
            return None
        verb = self._verbs.get(type(request))
        if verb is None:
            raise Refused("bad-message", f"{type(request).__name__} is no request")
        return verb(request, owner, route)

    # --- requests

    def _own(self, job: str, owner: str) -> Entry:
        """The owner's job. Somebody else's is answered as one that does not exist."""
        entry = self.ledger.entries.get(job)
        if entry is None or entry.owner != owner:
            raise Refused("no-such-job", f"there is no job {job!r}")
        return entry

    def _submit(self, request: Submit, owner: str, route: bytes) -> JobReply:
        known = self.ledger.find_ticket(owner, request.ticket)
        if known is not None:
            return JobReply(known.summary)
        if len(self.ledger.waiting()) >= QUEUE:
            raise Refused("too-many", f"{QUEUE} jobs wait already; try again when one has ended")
        try:
            job = check_submission(request)
        except DreamwrightError as error:
            raise Refused("bad-input", str(error)[: limits.MESSAGE_CHARACTERS]) from error
        before = {name: entry.summary.queue_place for name, entry in self.ledger.entries.items()}
        entry = self.ledger.add(owner, request, job.config.run.steps)
        log.info("job %s submitted: %s, %s", entry.summary.job, request.model, request.preset)
        self._tell(entry.summary.job)
        self._tell_places(before)
        return JobReply(entry.summary)

    def _list(self, request: ListJobs, owner: str, route: bytes) -> JobList:
        entries = self.ledger.newest(owner, request.before, request.count)
        return JobList(tuple(entry.summary for entry in entries), self.ledger.changed)

    def _subscribe(self, request: Subscribe, owner: str, route: bytes) -> JobList:
        if request.previews_of:
            self._own(request.previews_of, owner)
        self._audience.join(route, owner, request.previews_of)
        return self._list(ListJobs(), owner, route)

    def _cancel(self, request: Cancel, owner: str, route: bytes) -> JobReply:
        entry = self._own(request.job, owner)
        if entry.state in (JobState.QUEUED, JobState.PAUSED):
            self._move(request.job, JobState.CANCELLED)
        elif entry.state is JobState.RUNNING:
            self._move(request.job, JobState.CANCELLING, message="stopping; what there is becomes a mesh")
            self._foreman.stop(request.job, "cancel")
        return JobReply(self.ledger.entries[request.job].summary)

    def _pause(self, request: Pause, owner: str, route: bytes) -> JobReply:
        entry = self._own(request.job, owner)
        if entry.state is JobState.QUEUED:
            self._move(request.job, JobState.PAUSED)
        elif entry.state is JobState.RUNNING:
            self.ledger.note(request.job, message="pausing after this step")
            self._foreman.stop(request.job, "pause")
            self._tell(request.job)
        elif entry.state is not JobState.PAUSED:
            raise Refused("not-now", f"the job is {entry.state.value}; only queued and running ones can pause")
        return JobReply(self.ledger.entries[request.job].summary)

    def _resume(self, request: Resume, owner: str, route: bytes) -> JobReply:
        entry = self._own(request.job, owner)
        if entry.state is JobState.PAUSED:
            self._move(request.job, JobState.QUEUED, message="")
        elif entry.state is not JobState.QUEUED:
            raise Refused("not-now", f"the job is {entry.state.value}; only paused ones can be resumed")
        return JobReply(self.ledger.entries[request.job].summary)

    def _forget(self, request: Forget, owner: str, route: bytes) -> Done:
        entry = self._own(request.job, owner)
        if entry.state not in ENDED:
            raise Refused("not-now", f"the job is {entry.state.value}; cancel it first")
        self.ledger.forget(request.job)
        shutil.rmtree(self.ledger.job_folder(request.job), ignore_errors=True)
        self._audience.forgotten(owner, request.job)
        return Done()

    def _fetch(self, request: Fetch, owner: str, route: bytes) -> Chunk:
        entry = self._own(request.job, owner)
        path = self.ledger.job_folder(request.job) / MESH_FILE
        if not entry.summary.mesh_bytes:
            raise Refused("not-ready", f"the job is {entry.state.value} and has no mesh yet")
        try:
            with path.open("rb") as file:
                file.seek(request.offset)
                data = file.read(request.size)
        except OSError as error:
            raise Refused("internal", f"the mesh of job {request.job} cannot be read: {error.strerror}") from error
        return Chunk(request.offset, data, entry.summary.mesh_bytes, entry.summary.mesh_sha256)

    # --- work

    def work(self) -> None:
        """Take in the workers' reports, hand out jobs, tell subscribers; call it often."""
        for report in self._foreman.reports():
            self._take(report)
        waiting = self.ledger.waiting()
        for device in self._foreman.idle() if waiting else []:
            if waiting:
                entry = waiting.pop(0)
                name = entry.summary.job
                self._move(name, JobState.RUNNING, message="starting")
                self._foreman.give(device, self.ledger.entries[name].summary, self.ledger.job_folder(name))
        for job in list(self._untold):
            if self._clock() - self._told.get(job, 0.0) >= TELL_S:
                self._tell(job)
        self._audience.settle()

    def _take(self, report: Any) -> None:
        if isinstance(report, Died):
            self._bury(report)
            return
        entry = self.ledger.entries.get(report.job)
        if entry is None or entry.state in ENDED:
            return  # a word that arrived after the end
        if isinstance(report, Stepped):
            self.ledger.note(report.job, step=report.step, steps=report.steps, elapsed_s=report.elapsed_s, eta_s=report.eta_s)
            self._untold.add(report.job)
        elif isinstance(report, Noted):
            health = report.health or entry.summary.health
            message = entry.summary.message if report.health else report.message
            self.ledger.note(report.job, health=health, message=message)
            self._untold.add(report.job)
        elif isinstance(report, Pictured):
            self._audience.pictured(PreviewFrame(report.job, report.step, report.width, report.height, report.data))
        elif isinstance(report, Ended):
            self._end(entry, report)

    def _end(self, entry: Entry, report: Ended) -> None:
        job, fields = report.job, {"message": report.message, "eta_s": -1.0}
        if report.meshed:
            size, digest = file_hash(self.ledger.job_folder(job) / MESH_FILE)
            fields |= {"mesh_bytes": size, "mesh_sha256": digest}
        if entry.state is JobState.CANCELLING:  # also one that finished or failed before it heard of it
            self._move(job, JobState.CANCELLED, **fields)
        elif report.how == "paused":
            self._move(job, JobState.PAUSED, **fields)
        elif report.how == "cancelled":  # told by a server that has restarted since
            self._move(job, JobState.CANCELLING)
            self._move(job, JobState.CANCELLED, **fields)
        else:
            self._move(job, JobState(report.how), **fields)
        log.info("job %s %s", job, self.ledger.entries[job].summary.state)

    def _bury(self, died: Died) -> None:
        """A worker is dead: its job goes back to the queue, or fails when that happened too often."""
        log.warning("a worker ended with status %d", died.status)
        entry = self.ledger.entries.get(died.job)
        if entry is None:
            return
        if entry.state is JobState.CANCELLING:
            self._move(died.job, JobState.CANCELLED, message="its worker died while stopping; there is no mesh")
        elif entry.state is JobState.RUNNING:
            attempts = entry.attempts + 1
            reason = f"its worker process died (status {died.status})"
            if attempts >= ATTEMPTS:
                message = f"{reason}, {attempts} times; see the worker's log in {self.ledger.folder / 'logs'}"
                self._move(died.job, JobState.FAILED, attempts, message=message)
            else:
                self._move(died.job, JobState.QUEUED, attempts, message=f"{reason}; it goes on from its checkpoint")

    def _recover(self) -> None:
        """After a start: whatever was running when the server ended goes back to the queue."""
        for job, entry in list(self.ledger.entries.items()):
            if entry.state is JobState.RUNNING:
                self._move(job, JobState.QUEUED, message="the server was restarted; it goes on from its checkpoint")
            elif entry.state is JobState.CANCELLING:
                self._move(job, JobState.CANCELLED, message="the server was restarted while it stopped; there is no mesh")

    def _move(self, job: str, state: JobState, attempts: int | None = None, **fields: Any) -> None:
        before = {name: entry.summary.queue_place for name, entry in self.ledger.entries.items()}
        self.ledger.move(job, state, attempts, **fields)
        self._tell(job)
        self._tell_places(before)

    def _tell_places(self, before: dict[str, int]) -> None:
        for name, place in before.items():
            entry = self.ledger.entries.get(name)
            if entry is not None and entry.summary.queue_place != place:
                self._tell(name)

    def _tell(self, job: str) -> None:
        self._told[job] = self._clock()
        self._untold.discard(job)
        entry = self.ledger.entries[job]
        self._audience.changed(entry.owner, entry.summary)
