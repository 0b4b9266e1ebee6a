# SPDX-License-Identifier: GPL-3.0-or-later
"""What an artist tells the server about a job that there is. Knows nothing of bpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .shared.errors import RequestError
from .shared.messages import CancelJob, DeleteJob, JobReply, PauseJob, PinJob, ResumeJob, SetPriority


class Commands:
    """The part of a session that asks for changes of jobs; what a job is afterwards, the server says."""

    _ask: Callable[[Any, Callable[[Any], None]], None]
    _refused: Callable[[str, Any], None]
    _take_job: Callable[[Any], None]

    def _command(self, message: Any, what: str) -> None:
        def answered(reply: Any) -> None:
            if isinstance(reply, JobReply):
                self._take_job(reply.job)
            elif isinstance(reply, RequestError):
                self._refused(what, reply)

        self._ask(message, answered)

    def cancel(self, job: str) -> None:
        """Stop a job; what it has becomes a mesh."""
        self._command(CancelJob(job), "The job was not cancelled")

    def pause(self, job: str) -> None:
        """Stop a job for now."""
        self._command(PauseJob(job), "The job was not paused")

    def resume(self, job: str) -> None:
        """Go on with a paused job, or with a failed one that left a checkpoint."""
        self._command(ResumeJob(job), "The job was not resumed")

    def pin(self, job: str, pinned: bool) -> None:
        """Have the server keep an ended job until it is told otherwise, or no longer."""
        self._command(PinJob(job, pinned), "The job was not pinned" if pinned else "The job was not unpinned")

    def prioritize(self, job: str, priority: int) -> None:
        """Let a job go before or after others of its turn. Raises ProtocolError for a priority that there is not."""
        self._command(SetPriority(job, priority), "The job's priority was not changed")

    def forget(self, job: str) -> None:
        """Remove an ended job and its files from the server."""

        def answered(reply: Any) -> None:
            if isinstance(reply, RequestError) and reply.code != "no-such-job":  # then it is gone: asked again after a cut
                self._refused("The job was not removed", reply)

        self._ask(DeleteJob(job), answered)
