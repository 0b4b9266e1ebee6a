# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests about jobs that a session sends, and what becomes of their answers. Does not import bpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .shared.errors import RequestError
from .shared.messages import (
    CancelGroup,
    CancelJob,
    DeleteJob,
    DiscardGroup,
    JobList,
    JobReply,
    JobSummary,
    PauseJob,
    PinJob,
    ResumeJob,
    SetPriority,
)
from .wording import say

if TYPE_CHECKING:
    from .shared.client import Client


class JobRequests:
    """Base of `Session`: the requests. A failure becomes a notice."""

    _client: Client | None

    def notify(self, text: str, is_error: bool = True, fix: str = "") -> None:
        """Show a message in the panel."""
        raise NotImplementedError

    def _take_job(self, job: JobSummary) -> None:
        raise NotImplementedError

    def _request(self, message: Any, on_reply: Callable[[Any], None]) -> None:
        if self._client is None:
            on_reply(RequestError("not-now", say("not connected to a server")))
        else:
            self._client.request(message, on_reply)

    def _report_failure(self, what: str, reply: Any) -> None:
        why = (
            str(reply)
            if isinstance(reply, RequestError)
            else say("the server sent an unexpected {kind}", kind=type(reply).__name__)
        )
        self.notify(f"{what}: {why}")

    def _change_job(self, message: Any, failure: str) -> None:
        """Send a request about a job; the reply has the job's new state."""

        def on_reply(reply: Any) -> None:
            if isinstance(reply, JobReply):
                self._take_job(reply.job)
            elif isinstance(reply, RequestError):
                self._report_failure(failure, reply)

        self._request(message, on_reply)

    def _remove(self, message: Any, failure: str) -> None:
        """Send a request that deletes; after a lost connection it may arrive twice, and the second finds no job."""

        def on_reply(reply: Any) -> None:
            if isinstance(reply, RequestError) and reply.code != "no-such-job":
                self._report_failure(failure, reply)

        self._request(message, on_reply)

    def cancel(self, job: str) -> None:
        """Stop a job; its present state becomes a mesh."""
        self._change_job(CancelJob(job), say("The job was not cancelled"))

    def pause(self, job: str) -> None:
        """Stop a job and keep a checkpoint."""
        self._change_job(PauseJob(job), say("The job was not paused"))

    def resume(self, job: str) -> None:
        """Resume a paused job, or a failed one with a checkpoint."""
        self._change_job(ResumeJob(job), say("The job was not resumed"))

    def pin(self, job: str, pinned: bool) -> None:
        """Keep a job on the server until it is unpinned, or unpin it."""
        self._change_job(
            PinJob(job, pinned), say("The job was not pinned") if pinned else say("The job was not unpinned")
        )

    def set_priority(self, job: str, priority: int) -> None:
        """Change a job's priority. Raises ProtocolError outside the allowed range."""
        self._change_job(SetPriority(job, priority), say("The job's priority was not changed"))

    def delete(self, job: str) -> None:
        """Delete an ended job and its files on the server."""
        self._remove(DeleteJob(job), say("The job was not deleted"))

    def cancel_group(self, group: str) -> None:
        """Stop the jobs of a group that have not ended; their present state becomes meshes."""

        def on_reply(reply: Any) -> None:
            if isinstance(reply, JobList):
                for job in reply.jobs:
                    self._take_job(job)
            elif isinstance(reply, RequestError):
                self._report_failure(say("The variations were not cancelled"), reply)

        self._request(CancelGroup(group), on_reply)

    def discard_group(self, group: str, keep: str = "") -> None:
        """Delete the jobs of a group on the server, except `keep` and the pinned ones."""
        self._remove(DiscardGroup(group, keep), say("The variations were not discarded"))
