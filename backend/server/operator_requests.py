# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests of those who run a server: its admins, and the user of a server without keys."""

from __future__ import annotations

from collections.abc import Callable

from dreamwright.shared.errors import RequestError
from dreamwright.shared.job_states import JobState
from dreamwright.shared.messages import Done, JobReply
from dreamwright.shared.operator_messages import DiskFreed, DrainDevice, FreeDisk

from .jobs.cleanup import Cleanup
from .jobs.job_record import JobRecord
from .jobs.job_store import JobStore
from .request_context import RequestContext
from .workers.dispatcher import Dispatcher


class OperatorRequests:
    """Their answers. `devices` returns the devices that the runner has now. All raise RequestError and StorageError."""

    def __init__(
        self, store: JobStore, dispatcher: Dispatcher, cleanup: Cleanup, devices: Callable[[], tuple[str, ...]]
    ) -> None:
        self._store, self._dispatcher, self._cleanup, self._devices = store, dispatcher, cleanup, devices

    def move(self, record: JobRecord, context: RequestContext) -> JobReply:
        """Start a queued job, which the user may see, before all others."""
        check_operator(context)
        if record.state is not JobState.QUEUED:
            raise RequestError("not-now", f"the job is {record.state.value}; only queued ones can be moved")
        return JobReply(self._store.move_first(record.job).summary)

    def drain(self, request: DrainDevice, context: RequestContext) -> Done:
        """Start no more jobs on a device, or start them again. A drained device that is gone can be used again."""
        check_operator(context)
        devices, device = self._devices(), request.device
        if device not in devices and (request.draining or device not in self._dispatcher.drained):
            known = ", ".join(devices) or "none now"
            raise RequestError("bad-input", f"there is no device {device!r}; this server has {known}")
        self._dispatcher.drained.set(device, request.draining)
        self._dispatcher.eta.update()
        return Done()

    def free_disk(self, request: FreeDisk, context: RequestContext) -> DiskFreed:
        """Delete ended jobs that nobody needs from here any more."""
        check_operator(context)
        return DiskFreed(*self._cleanup.free())


def check_operator(context: RequestContext) -> None:
    """Raise RequestError for a user who does not run the server."""
    if not context.may_operate:
        raise RequestError("not-allowed", "only the admins of this server may do this; ask one of them")
