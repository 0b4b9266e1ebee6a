# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's answers: what each request of a user does to the ledger.

Knows no sockets: the front door brings requests and carries answers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dreamwright.shared import limits
from dreamwright.shared.errors import RequestError
from dreamwright.shared.job_states import ENDED, JobState
from dreamwright.shared.messages import (
    CancelJob,
    Chunk,
    DeleteJob,
    Done,
    FetchChunk,
    GetCapabilities,
    GetStatus,
    Hello,
    JobList,
    JobReply,
    ListJobs,
    PauseJob,
    PinJob,
    PreviewAck,
    ResumeJob,
    SetPriority,
    SubmitJob,
    Subscribe,
    UploadChunk,
    Welcome,
)

from ..config.schema import RunConfig
from ..errors import DreamwrightError
from ..scenes.initial_field import first_step
from .jobs.initial_fields import check_fit, check_kept, named
from .jobs.job_store import JobRecord, JobStore, StorageError
from .jobs.scheduling import check_priority, check_quota
from .jobs.uploads import Uploads
from .monitoring.counters import Counters
from .monitoring.status_reporter import StatusReporter
from .policy import Policy
from .requests import capabilities, check_submission
from .transport.authorized_keys import LOCAL
from .transport.event_publisher import EventPublisher
from .transport.subscribers import Audience
from .workers.dispatcher import Dispatcher
from .workers.job_executor import MESH_FILE
from .workers.runner import Runner

log = logging.getLogger(__name__)

CLOSING = "The server is being stopped; jobs keep their place and go on from where they are when it is back"


@dataclass(frozen=True)
class RequestContext:
    """Who sends a request: the user, the connection, and whether every job is theirs to see and change."""

    owner: str
    route: bytes
    is_admin: bool


class Service:
    """Requests in, replies out; `work` hands out jobs and takes reports."""

    def __init__(
        self,
        ledger: JobStore,
        runner: Runner,
        audience: Audience,
        software: str,
        epoch: str,
        clock: Callable[[], float] = time.monotonic,
        policy: Policy = Policy(),
    ) -> None:
        self.ledger, self._runner, self._audience = ledger, runner, audience
        self._policy = policy
        self.tally = Counters()
        self._herald = EventPublisher(ledger, audience, clock, self.tally)
        self._dispatch = Dispatcher(self._herald, runner, policy, clock)
        self.observer = StatusReporter(ledger, self.tally, lambda: runner.devices, software, self._dispatch, clock)
        self.uploads = Uploads(ledger.folder, policy, clock)
        self._is_closing = False
        self._verbs: dict[type[Any], Callable[[Any, RequestContext], Any]] = {
            Hello: lambda request, asker: Welcome(software, epoch),
            GetCapabilities: lambda request, asker: capabilities(runner.devices, policy),
            GetStatus: lambda request, asker: self.observer.status(
                asker.owner, asker.is_admin, asker.owner == LOCAL, self._is_closing
            ),
            SubmitJob: self._submit,
            UploadChunk: lambda request, asker: self.uploads.receive(asker.owner, request),
            ListJobs: self._list,
            Subscribe: self._subscribe,
            CancelJob: self._cancel,
            PauseJob: self._pause,
            ResumeJob: self._resume,
            SetPriority: self._prioritize,
            PinJob: self._pin,
            DeleteJob: self._forget,
            FetchChunk: self._fetch,
        }
        self._dispatch.recover()

    def answer(self, request: Any, owner: str, route: bytes, is_admin: bool = False) -> Any:
        """The reply to a request of `owner`; None for those that have none. Raises Refused."""
        self._audience.heard(route)
        self.observer.heard(route, owner)
        if isinstance(request, PreviewAck):
            self._audience.seen(route, request.count)
            return None
        verb = self._verbs.get(type(request))
        if verb is None:
            raise RequestError("bad-message", f"{type(request).__name__} is no request")
        try:
            return verb(request, RequestContext(owner, route, is_admin))
        except StorageError as fault:
            log.warning(
                "request not written down", extra={"user": owner, "request": type(request).__name__, "why": str(fault)}
            )
            raise RequestError("no-space", f"{fault}, then send it again") from fault

    def work(self) -> None:
        """Take in the workers' reports, hand out jobs, tell subscribers; call it often."""
        self._dispatch.work()
        self.uploads.sweep()

    def begin_closing(self) -> None:
        """Tell everybody that the server is about to end, and have the running jobs stop with a checkpoint."""
        self._is_closing = True
        self._audience.closing(CLOSING)
        self._dispatch.recall()

    def at_work(self) -> list[str]:
        """Jobs that a worker has in hand."""
        return self._dispatch.at_work()

    # --- requests

    def _own(self, job: str, asker: RequestContext) -> JobRecord:
        """A job that is the asker's to see. Somebody else's is answered as one that does not exist."""
        entry = self.ledger.entries.get(job)
        if entry is None or not (asker.is_admin or entry.owner == asker.owner):
            raise RequestError("no-such-job", f"there is no job {job!r}")
        return entry

    def _submit(self, request: SubmitJob, asker: RequestContext) -> JobReply:
        owner = asker.owner
        known = self.ledger.find_ticket(owner, request.ticket)
        if known is not None:
            return JobReply(known.summary)
        check_priority(request.priority, 0, asker.is_admin)
        policy = self._policy
        check_quota(self.ledger.open_jobs(owner), policy.jobs_per_user, self.ledger.open_jobs(), policy.jobs_total)
        try:
            job = check_submission(request, folders=asker.is_admin or owner == LOCAL)
            if request.parent_job and request.mesh:
                raise RequestError(
                    "bad-input",
                    "a job begins from another job's field or from a mesh; leave out one of parent_job and mesh",
                )
            if request.parent_job:
                origin = self._own(request.parent_job, asker)
                check_kept(origin)
                check_fit(origin.summary, job)
        except DreamwrightError as error:
            raise RequestError("bad-input", str(error)[: limits.MESSAGE_CHARACTERS]) from error
        before = self._herald.places()
        entry = self._add(request, owner, job.config.run)
        log.info(
            "job submitted",
            extra={"job": entry.summary.job, "user": owner, "model": request.model, "preset": request.preset},
        )
        self._dispatch.update_eta()
        self._herald.added(entry.summary.job, before)
        return self._reply(entry.summary.job)

    def _add(self, request: SubmitJob, owner: str, run: RunConfig) -> JobRecord:
        """Write the job down; first what it begins from: a folder of a job that was not written down goes at the next start."""
        with named(self.ledger, request.parent_job) as name:
            if request.mesh:
                self.uploads.take(owner, request.mesh, self.ledger.job_folder(name))
            return self.ledger.add(owner, request, run.steps, name, first_step(run) if request.parent_job else 0)

    def _reply(self, job: str) -> JobReply:
        return JobReply(self.ledger.entries[job].summary)

    def _list(self, request: ListJobs, asker: RequestContext) -> JobList:
        entries = self.ledger.newest(None if asker.is_admin else asker.owner, request.before, request.count)
        return JobList(tuple(entry.summary for entry in entries), self.ledger.changed)

    def _subscribe(self, request: Subscribe, asker: RequestContext) -> JobList:
        if request.previews_of:
            self._own(request.previews_of, asker)
        self._audience.join(asker.route, asker.owner, request.previews_of, asker.is_admin)
        return self._list(ListJobs(), asker)

    def _prioritize(self, request: SetPriority, asker: RequestContext) -> JobReply:
        entry = self._own(request.job, asker)
        if entry.state in ENDED:
            raise RequestError("not-now", f"the job is {entry.state.value}; only what has not ended has a priority")
        check_priority(request.priority, entry.summary.priority, asker.is_admin)
        if request.priority != entry.summary.priority:
            self._herald.amend(request.job, priority=request.priority)
            self._dispatch.update_eta()
        return self._reply(request.job)

    def _pin(self, request: PinJob, asker: RequestContext) -> JobReply:
        entry = self._own(request.job, asker)
        pinned = sum(1 for e in self.ledger.entries.values() if e.owner == entry.owner and e.summary.pinned)
        limit = self._policy.pinned_per_user
        if request.pinned and not entry.summary.pinned and pinned >= limit:
            raise RequestError(
                "too-many", f"{pinned} of your jobs are pinned; allowed are {limit} a user; unpin one first"
            )
        if request.pinned != entry.summary.pinned:
            self._herald.amend(request.job, pinned=request.pinned)
        return self._reply(request.job)

    def _cancel(self, request: CancelJob, asker: RequestContext) -> JobReply:
        entry = self._own(request.job, asker)
        if entry.state in (JobState.QUEUED, JobState.PAUSED):
            self._herald.move(
                request.job, JobState.CANCELLED, message="cancelled while it waited; there is no mesh", cause=""
            )
            self._dispatch.sweeper.clear(request.job)
        elif entry.state is JobState.RUNNING:
            self._herald.move(request.job, JobState.CANCELLING, message="stopping; what there is becomes a mesh")
            self._runner.stop(request.job, "cancel")
        return self._reply(request.job)

    def _pause(self, request: PauseJob, asker: RequestContext) -> JobReply:
        entry = self._own(request.job, asker)
        if entry.state is JobState.QUEUED:
            self._herald.move(request.job, JobState.PAUSED)
        elif entry.state is JobState.RUNNING:
            self.ledger.note(request.job, message="pausing after this step")
            self._dispatch.pausing.add(request.job)
            self._runner.stop(request.job, "pause")
            self._herald.tell(request.job)
        elif entry.state is not JobState.PAUSED:
            raise RequestError("not-now", f"the job is {entry.state.value}; only queued and running ones can pause")
        return self._reply(request.job)

    def _resume(self, request: ResumeJob, asker: RequestContext) -> JobReply:
        entry = self._own(request.job, asker)
        if entry.state is JobState.PAUSED:
            self._dispatch.resume(request.job)
        elif entry.state is JobState.FAILED and self._dispatch.can_go_on(entry):
            policy = self._policy
            check_quota(
                self.ledger.open_jobs(entry.owner), policy.jobs_per_user, self.ledger.open_jobs(), policy.jobs_total
            )
            self._dispatch.resume(request.job)
        elif entry.state is not JobState.QUEUED:
            raise RequestError(
                "not-now",
                f"the job is {entry.state.value}; only paused ones, and failed ones with a checkpoint, can be resumed",
            )
        return self._reply(request.job)

    def _forget(self, request: DeleteJob, asker: RequestContext) -> Done:
        entry = self._own(request.job, asker)
        if entry.state not in ENDED:
            raise RequestError("not-now", f"the job is {entry.state.value}; cancel it first")
        self._dispatch.sweeper.drop(entry)
        return Done()

    def _fetch(self, request: FetchChunk, asker: RequestContext) -> Chunk:
        entry = self._own(request.job, asker)
        path = self.ledger.job_folder(request.job) / MESH_FILE
        if not entry.summary.mesh_bytes:
            raise RequestError("not-ready", f"the job is {entry.state.value} and has no mesh yet")
        try:
            with path.open("rb") as file:
                file.seek(request.offset)
                data = file.read(request.size)
        except OSError as error:
            raise RequestError("internal", f"the mesh of job {request.job} cannot be read: {error.strerror}") from error
        if (
            data
            and request.offset + len(data) >= entry.summary.mesh_bytes
            and not entry.summary.fetched
            and asker.owner == entry.owner
        ):
            try:
                self._herald.amend(request.job, fetched=True)
            except StorageError as fault:
                log.warning(
                    "fetch not noted", extra={"job": request.job, "why": str(fault)}
                )  # then it is only kept longer
        return Chunk(request.offset, data, entry.summary.mesh_bytes, entry.summary.mesh_sha256)
