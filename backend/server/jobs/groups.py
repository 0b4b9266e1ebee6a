# SPDX-License-Identifier: GPL-3.0-or-later
"""Groups of jobs: variations of one prompt that are submitted together, cancelled together, and discarded but for one.

A group is only a label on ordinary jobs: queue, quota and retention treat each job as any other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from dreamwright.shared.errors import RequestError
from dreamwright.shared.job_states import ENDED, JobState
from dreamwright.shared.messages import SubmitJob

from .cleanup import Cleanup
from .job_record import JobRecord
from .job_store import JobStore, StorageError

log = logging.getLogger(__name__)

RETRY_S = 10.0  # before a deletion that the disk refused is tried again


def check_place(request: SubmitJob, members: Iterable[JobRecord]) -> None:
    """Raise RequestError for a place in a group that another job has, and for a place without a group.

    `members`: the jobs of the group that the user already has.
    """
    if not request.group:
        if request.group_index:
            raise RequestError(
                "bad-input", f"group_index is {request.group_index} without a group; give a group, or leave it out"
            )
        return
    for record in members:
        if record.summary.group_index == request.group_index:
            raise RequestError(
                "bad-input",
                f"place {request.group_index} of group {request.group} is that of job {record.job}; send it with "
                "another group_index",
            )


class JobGroups:
    """The groups of a store. `cancel` stops one job, as `Dispatcher.cancel` does.

    To discard a job is to mark it, on disk, and then to stop and delete it in `step`, also when the server restarts.
    """

    def __init__(
        self, store: JobStore, cleanup: Cleanup, cancel: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        self._store, self._cleanup, self._cancel, self._clock = store, cleanup, cancel, clock
        self._discarded = {job for job, record in store.records.items() if record.summary.discarded}
        self._retry_at = clock()

    def members(self, group: str, owner: str | None) -> list[JobRecord]:
        """The jobs of a group of one owner, or of all (None), by their place."""
        found = (r for r in self._store.records.values() if r.summary.group == group and owner in (None, r.owner))
        return sorted(found, key=lambda record: record.summary.group_index)

    def cancel(self, members: Iterable[JobRecord]) -> None:
        """Cancel the jobs that have not ended. Raises StorageError."""
        for record in members:
            self._cancel(record.job)

    def discard(self, members: Iterable[JobRecord]) -> None:
        """Delete the jobs, those that have not ended as soon as they are stopped. Raises StorageError."""
        for record in members:
            if not record.summary.discarded:
                self._store.update(record.job, discarded=True)
            self._discarded.add(record.job)
        self._remove()

    def step(self) -> None:
        """Stop and delete discarded jobs as far as possible now."""
        if self._discarded and self._clock() >= self._retry_at:
            try:
                self._remove()
            except StorageError as error:
                self._retry_at = self._clock() + RETRY_S
                log.warning("discarded jobs not deleted", extra={"why": str(error)})

    def _remove(self) -> None:
        for job in list(self._discarded):
            record = self._store.records.get(job)
            if record is not None and record.state not in ENDED and record.state is not JobState.CANCELLING:
                self._cancel(job)
                record = self._store.records.get(job)
            if record is not None and record.state in ENDED:
                log.info("job discarded", extra={"job": job, "user": record.owner})
                self._cleanup.delete(record)
                record = None
            if record is None:
                self._discarded.discard(job)
