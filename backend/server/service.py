# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers requests: checks who may do what, and calls the job store, the dispatcher and the uploads.

It knows no sockets: the server passes it requests and sends its replies. `app.build_service` builds what it calls.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dreamwright.shared import limits
from dreamwright.shared.errors import RequestError
from dreamwright.shared.job_states import ENDED, JobState
from dreamwright.shared.live_mesh_messages import LiveMeshAck
from dreamwright.shared.messages import (
    CancelGroup,
    CancelJob,
    Chunk,
    DeleteJob,
    DiscardGroup,
    Done,
    FetchChunk,
    GetCapabilities,
    GetPreview,
    GetStatus,
    Hello,
    JobList,
    JobReply,
    ListJobs,
    PauseJob,
    PinJob,
    PreviewAck,
    PreviewReply,
    ResumeJob,
    SetPriority,
    SubmitJob,
    Subscribe,
    UploadChunk,
    UploadProgress,
    Welcome,
)
from dreamwright.shared.model_messages import DownloadModel, ModelDownloadReply, StopDownload
from dreamwright.shared.operator_messages import DrainDevice, FreeDisk, MoveJob

from ..errors import DreamwrightError
from ..scenes.initial_field import first_step
from .jobs.cleanup import Cleanup
from .jobs.groups import JobGroups, check_place
from .jobs.initial_fields import check_start, new_job_folder
from .jobs.job_record import JobRecord
from .jobs.job_store import JobStore, StorageError
from .jobs.mesh_chunks import fetch_mesh_chunk
from .jobs.pinning import check_pin
from .jobs.preview_file import read_preview
from .jobs.scheduling import check_priority, check_quota
from .jobs.uploads import Uploads
from .model_downloads import ModelDownloads
from .monitoring.status_reporter import MetricsSnapshot, StatusReporter
from .operator_requests import OperatorRequests
from .policy import Policy
from .request_audit import RequestAudit
from .request_context import RequestContext as RequestContext
from .requests import capabilities, check_submission
from .transport.authorized_keys import LOCAL
from .transport.event_publisher import EventPublisher
from .workers.dispatcher import Dispatcher

log = logging.getLogger(__name__)

SHUTDOWN_MESSAGE = "The server is stopping; jobs keep their progress and continue when it is back"


class Service:
    """Requests in, replies out; `step` runs the jobs. `devices` returns those that the runner has now."""

    def __init__(
        self,
        welcome: Welcome,
        policy: Policy,
        store: JobStore,
        publisher: EventPublisher,
        dispatcher: Dispatcher,
        cleanup: Cleanup,
        uploads: Uploads,
        groups: JobGroups,
        models: ModelDownloads,
        reporter: StatusReporter,
        devices: Callable[[], tuple[str, ...]],
        audit: RequestAudit,
    ) -> None:
        self._welcome, self._policy, self._devices = welcome, policy, devices
        self._store, self._publisher, self._reporter = store, publisher, reporter
        self.dispatcher, self.cleanup, self.uploads = dispatcher, cleanup, uploads
        self._groups, self.models = groups, models
        self._audit = audit
        self._is_closing = False
        operator = OperatorRequests(store, dispatcher, cleanup, devices)
        self._handlers: dict[type[Any], Callable[[Any, RequestContext], Any]] = {
            Hello: self._hello,
            GetCapabilities: self._capabilities,
            GetStatus: self._status,
            SubmitJob: self._submit,
            UploadChunk: self._upload,
            ListJobs: self._list,
            Subscribe: self._subscribe,
            CancelJob: self._cancel,
            CancelGroup: self._cancel_group,
            DiscardGroup: self._discard_group,
            PauseJob: self._pause,
            ResumeJob: self._resume,
            SetPriority: self._set_priority,
            PinJob: self._pin,
            DeleteJob: self._delete,
            GetPreview: self._preview,
            FetchChunk: self._fetch,
            DownloadModel: self._download_model,
            StopDownload: self._download_model,
            MoveJob: lambda request, context: operator.move(self._visible(request.job, context), context),
            DrainDevice: operator.drain,
            FreeDisk: operator.free_disk,
        }

    def answer(self, request: Any, context: RequestContext) -> Any:
        """The reply to a request; None for those without one. Raises RequestError."""
        jobs, reply, outcome = self._audit.begin(request, context), None, "internal"
        try:
            reply = self._answer(request, context)
            outcome = "ok"
        except RequestError as error:
            outcome = error.code
            raise
        finally:
            self._audit.end(request, context, jobs, outcome, reply)
        return reply

    def _answer(self, request: Any, context: RequestContext) -> Any:
        self._publisher.touch(context.route)
        self._reporter.touch(context.route, context.owner)
        if isinstance(request, PreviewAck):
            self._publisher.previews.acknowledge(context.route, request.count)
            return None
        if isinstance(request, LiveMeshAck):
            self._publisher.live_meshes.acknowledge(context.route, request.count)
            return None
        handler = self._handlers.get(type(request))
        if handler is None:
            raise RequestError("bad-message", f"{type(request).__name__} is not a request")
        try:
            return handler(request, context)
        except StorageError as error:
            log.warning(
                "request not committed",
                extra={"user": context.owner, "request": type(request).__name__, "why": str(error)},
            )
            raise RequestError("no-space", f"{error}, then send it again") from error

    def step(self) -> None:
        """Handle the workers' reports, assign jobs, publish events, remove discarded jobs and expired uploads."""
        self.dispatcher.step()
        self._groups.step()
        self.models.step()
        self.uploads.remove_expired()
        self._audit.step()

    def use_policy(self, policy: Policy) -> None:
        """Follow these limits from now on; what is over a lower one stays, and nothing more is taken."""
        self._policy = policy
        for part in (self.dispatcher, self.cleanup, self.uploads):
            part.use_policy(policy)

    def begin_shutdown(self) -> None:
        """Tell all subscribers that the server is about to end, and pause the running jobs."""
        self._is_closing = True
        self._publisher.publish_shutdown(SHUTDOWN_MESSAGE)
        self.dispatcher.stop_all()

    def running_jobs(self) -> list[str]:
        """Jobs that would lose work if the server ended now."""
        return self.dispatcher.running_jobs()

    def metrics(self) -> MetricsSnapshot:
        """All metrics, for an exporter."""
        return self._reporter.metrics(self._is_closing)

    # --- the server

    def _hello(self, request: Hello, context: RequestContext) -> Welcome:
        return self._welcome

    def _capabilities(self, request: GetCapabilities, context: RequestContext) -> Any:
        return capabilities(self._devices(), self._policy, context.may_manage_models)

    def _status(self, request: GetStatus, context: RequestContext) -> Any:
        is_open = context.owner == LOCAL
        return self._reporter.status(context.owner, context.is_admin, is_open, self._is_closing)

    def _upload(self, request: UploadChunk, context: RequestContext) -> UploadProgress:
        return self.uploads.receive(context.owner, request)

    def _subscribe(self, request: Subscribe, context: RequestContext) -> JobList:
        for job in filter(None, (request.previews_of, request.meshes_of)):
            self._visible(job, context)
        self._publisher.subscribe(
            context.route, context.owner, request.previews_of, context.is_admin, request.meshes_of,
            context.may_manage_models,
        )  # fmt: skip
        downloads = self.models.downloads if context.may_manage_models else ()
        jobs = self._list(ListJobs(), context)
        return replace(jobs, downloads=downloads, capabilities_revision=self.models.revision)

    def _download_model(self, request: DownloadModel | StopDownload, context: RequestContext) -> ModelDownloadReply:
        act = self.models.start if isinstance(request, DownloadModel) else self.models.stop
        return ModelDownloadReply(act(request.model, context.may_manage_models))

    # --- jobs

    def _visible(self, job: str, context: RequestContext) -> JobRecord:
        """A job that the user may see. For any other job the answer is that it does not exist."""
        record = self._store.records.get(job)
        if record is None or not (context.is_admin or record.owner == context.owner):
            raise RequestError("no-such-job", f"there is no job {job!r}")
        return record

    def _reply(self, job: str) -> JobReply:
        return JobReply(self._store.records[job].summary)

    def _check_quota(self, owner: str) -> None:
        store, policy = self._store, self._policy
        check_quota(store.open_jobs(owner), policy.jobs_per_user, store.open_jobs(), policy.jobs_total)

    def _list(self, request: ListJobs, context: RequestContext) -> JobList:
        owner = None if context.is_admin else context.owner
        records = self._store.newest(owner, request.before, request.count)
        return JobList(tuple(record.summary for record in records), self._store.changed)

    def _submit(self, request: SubmitJob, context: RequestContext) -> JobReply:
        owner = context.owner
        known = self._store.find_ticket(owner, request.ticket)
        if known is not None:
            return JobReply(known.summary)
        check_priority(request.priority, 0, context.is_admin)
        check_place(request, self._groups.members(request.group, owner) if request.group else ())
        self._check_quota(owner)
        self.cleanup.make_room(owner)
        try:
            job = check_submission(request, folders=context.may_manage_models)
            check_start(request, job.config, lambda parent: self._visible(parent, context))
        except DreamwrightError as error:
            raise RequestError("bad-input", str(error)[: limits.MESSAGE_CHARACTERS]) from error
        run = job.config.run
        request = replace(request, prompt=job.prompt)  # as it was cleaned
        with new_job_folder(self._store, request.parent_job) as name:
            if request.mesh:
                self.uploads.take(owner, request.mesh, self._store.job_folder(name))
            self._store.add(owner, request, job.config.total_steps, name, first_step(run) if request.parent_job else 0)
        fields = {"job": name, "user": owner, "model": request.model, "preset": request.preset}
        log.info("job submitted", extra=fields)
        self.dispatcher.eta.hasten()
        return self._reply(name)

    def _set_priority(self, request: SetPriority, context: RequestContext) -> JobReply:
        record = self._visible(request.job, context)
        if record.state in ENDED:
            raise RequestError("not-now", f"the job is {record.state.value}; only jobs that have not ended have one")
        check_priority(request.priority, record.summary.priority, context.is_admin)
        if request.priority != record.summary.priority:
            self._store.update(request.job, priority=request.priority)
            self.dispatcher.eta.hasten()
        return self._reply(request.job)

    def _pin(self, request: PinJob, context: RequestContext) -> JobReply:
        record = self._visible(request.job, context)
        if request.pinned and not record.summary.pinned:
            check_pin(record, self._store.records.values(), self._policy, self.cleanup)
        if request.pinned != record.summary.pinned:
            self._store.update(request.job, pinned=request.pinned)
        return self._reply(request.job)

    def _cancel(self, request: CancelJob, context: RequestContext) -> JobReply:
        self._visible(request.job, context)
        self.dispatcher.cancel(request.job)
        return self._reply(request.job)

    def _group(self, group: str, context: RequestContext) -> list[JobRecord]:
        """The jobs of a group that the user may see. Raises RequestError when there is none."""
        members = self._groups.members(group, None if context.is_admin else context.owner) if group else []
        if not members:
            raise RequestError("no-such-job", f"there is no group {group!r}")
        return members

    def _cancel_group(self, request: CancelGroup, context: RequestContext) -> JobList:
        members = self._group(request.group, context)
        self._groups.cancel(members)
        return self._list_of(members)

    def _discard_group(self, request: DiscardGroup, context: RequestContext) -> JobList:
        members = self._group(request.group, context)
        staying = [record for record in members if record.job == request.keep or record.summary.pinned]
        if request.keep and request.keep not in [record.job for record in members]:
            raise RequestError("no-such-job", f"group {request.group!r} has no job {request.keep!r}")
        self._groups.discard(record for record in members if record not in staying)
        return self._list_of(staying)

    def _list_of(self, records: list[JobRecord]) -> JobList:
        return JobList(tuple(self._store.records[record.job].summary for record in records), self._store.changed)

    def _pause(self, request: PauseJob, context: RequestContext) -> JobReply:
        record = self._visible(request.job, context)
        if record.state not in (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED):
            raise RequestError("not-now", f"the job is {record.state.value}; only queued and running ones can pause")
        self.dispatcher.pause(request.job)
        return self._reply(request.job)

    def _resume(self, request: ResumeJob, context: RequestContext) -> JobReply:
        record = self._visible(request.job, context)
        if record.state is JobState.PAUSED:
            self.dispatcher.resume(request.job)
        elif record.state is JobState.FAILED and self.dispatcher.can_resume(record):
            self._check_quota(record.owner)
            self.dispatcher.resume(request.job)
        elif record.state is not JobState.QUEUED:
            raise RequestError(
                "not-now",
                f"the job is {record.state.value}; only paused ones, and failed ones with a checkpoint, can be resumed",
            )
        return self._reply(request.job)

    def _delete(self, request: DeleteJob, context: RequestContext) -> Done:
        record = self._visible(request.job, context)
        if record.state not in ENDED:
            raise RequestError("not-now", f"the job is {record.state.value}; cancel it first")
        self.cleanup.delete(record)
        return Done()

    def _preview(self, request: GetPreview, context: RequestContext) -> PreviewReply:
        record = self._visible(request.job, context)
        frame = self._publisher.previews.newest.get(request.job) or read_preview(self._store.job_folder(request.job))
        if frame is None:
            raise RequestError("not-ready", f"the job is {record.state.value} and has no preview")
        return PreviewReply(frame)

    def _fetch(self, request: FetchChunk, context: RequestContext) -> Chunk:
        record = self._visible(request.job, context)
        return fetch_mesh_chunk(self._store, record, request.offset, request.size, context.owner == record.owner)
