# SPDX-License-Identifier: GPL-3.0-or-later
"""Which requests the audit log records, and what it says of each: no prompts, no settings, no unknown names."""

from __future__ import annotations

from typing import Any

from dreamwright.shared.messages import (
    CancelGroup,
    CancelJob,
    DeleteJob,
    DiscardGroup,
    FetchChunk,
    JobReply,
    PauseJob,
    PinJob,
    ResumeJob,
    SetPriority,
    SubmitJob,
    UploadChunk,
    UploadProgress,
)
from dreamwright.shared.model_messages import DownloadModel, StopDownload
from dreamwright.shared.operator_messages import DrainDevice, FreeDisk, MoveJob

from .jobs.job_store import JobStore
from .jobs.retention import FREED_AT_ONCE, disposable_jobs
from .monitoring.audit_log import AuditLog
from .request_context import RequestContext

AUDITED: dict[type[Any], str] = {
    SubmitJob: "submit",
    UploadChunk: "upload",
    CancelJob: "cancel",
    CancelGroup: "cancel",
    DiscardGroup: "discard",
    PauseJob: "pause",
    ResumeJob: "resume",
    SetPriority: "set priority",
    PinJob: "pin",
    DeleteJob: "delete",
    FetchChunk: "fetch",
    MoveJob: "move first",
    DrainDevice: "drain",
    FreeDisk: "free disk",
    DownloadModel: "download model",
    StopDownload: "stop download",
}

# These change nothing that outlives the connection; what they show is their user's own, or an admin's to see.
NOT_AUDITED = frozenset(
    ("Hello", "GetCapabilities", "GetStatus", "ListJobs", "Subscribe", "PreviewAck", "LiveMeshAck", "GetPreview")
)


class RequestAudit:
    """Call `begin` before a request is answered and `end` after it."""

    def __init__(self, audit: AuditLog, store: JobStore) -> None:
        self._audit, self._store = audit, store

    def begin(self, request: Any, context: RequestContext) -> list[tuple[str, str]]:
        """(job, its owner) of each existing job that the request names, before anything happens to it."""
        if type(request) not in AUDITED:
            return []
        if isinstance(request, (CancelGroup, DiscardGroup)):
            owner = None if context.is_admin else context.owner
            records = [r for r in self._store.records.values() if r.summary.group == request.group]
            return [(record.job, record.owner) for record in records if owner in (None, record.owner)]
        if isinstance(request, FreeDisk):
            found = disposable_jobs(self._store.records.values()) if context.may_operate else []
            return [(record.job, record.owner) for record in found[:FREED_AT_ONCE]]
        record = self._store.records.get(getattr(request, "job", ""))
        return [] if record is None else [(record.job, record.owner)]

    def end(self, request: Any, context: RequestContext, jobs: list[tuple[str, str]], outcome: str, reply: Any) -> None:
        """Record the request with its outcome. What an admin does to others is on the disk before the answer."""
        action = AUDITED.get(type(request))
        if action is None:
            return
        if outcome == "ok":
            if isinstance(request, SubmitJob) and isinstance(reply, JobReply):
                jobs = [(reply.job.job, context.owner)]
            elif isinstance(request, UploadChunk):
                if not (request.data and isinstance(reply, UploadProgress) and reply.offset == request.total):
                    return  # not the last chunk
            elif isinstance(request, FetchChunk) and request.offset + len(reply.data) < reply.size:
                return
            elif isinstance(request, DrainDevice):
                action = f"{'drain' if request.draining else 'use'} {request.device}"  # a device of this server
            elif isinstance(request, (DownloadModel, StopDownload)):
                action += f" {request.model}"  # the name of a registered model, or it were refused
        for_others = context.is_admin and any(owner != context.owner for _, owner in jobs)
        for job, owner in jobs or [("", "")]:
            limited = not context.is_admin
            self._audit.note(context.owner, context.key, action, job, owner, outcome, limited)
        if for_others:
            self._audit.flush()

    def step(self) -> None:
        """Write what waits."""
        self._audit.step()
