# SPDX-License-Identifier: GPL-3.0-or-later
"""Making the props of a list on all devices: jobs that are not done are run, finished ones are collected."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dreamwright.shared.job_states import ENDED, JobState

from ..errors import DreamwrightError, RunError
from ..server.jobs.job_record import JobRecord
from ..server.jobs.job_store import StorageError
from ..server.local_queue import LocalQueue
from .collecting import collect, planned_entry
from .library_folder import Failure, Library, LibraryFolder, PropEntry
from .planning import PlannedProp

GRACE_S = 600.0  # for the current steps when a batch is stopped; a step of a large model on a CPU takes minutes
MANY_ROWS = 200  # a thousand take ten seconds to be queued, as each is on the disk before the next
WAITS = "waiting: "  # begins the message of a job that the disk has no room for


@dataclass(frozen=True)
class Progress:
    """Steps taken of all the list's steps, props done of all its rows, and the running prompts by device."""

    step: int
    steps: int
    done: int
    rows: int
    running: Mapping[str, str]


@dataclass(frozen=True)
class PropDone:
    """A prop was made, or its files written again."""

    prop: PlannedProp
    entry: PropEntry


@dataclass(frozen=True)
class PropFailed:
    """A row without a prop."""

    failure: Failure


@dataclass(frozen=True)
class Waiting:
    """Why nothing is made at the moment."""

    message: str


Event = Progress | PropDone | PropFailed | Waiting


class Batch:
    """The rows of one list in one library, which is locked. `events` runs them; `library` is always what is on disk.

    `retry`: whether failed rows are tried again.
    """

    def __init__(
        self, folder: LibraryFolder, library: Library, planned: Sequence[PlannedProp], retry: bool = False
    ) -> None:
        known = [(prop, library.props.get(prop.ticket)) for prop in planned]
        # Names, tags and catalogs are those of this list.
        self.folder = folder
        self.library = library.with_props(planned_entry(prop, entry) for prop, entry in known if entry is not None)
        self.planned, self._retry = planned, retry
        self.failures: list[Failure] = []

    @property
    def open_props(self) -> list[PlannedProp]:
        """The rows whose files are not all there."""
        found = [(prop, self.library.props.get(prop.ticket)) for prop in self.planned]
        return [prop for prop, entry in found if entry is None or not self.folder.has_files(entry)]

    def events(self, queue: LocalQueue, should_stop: Callable[[], bool]) -> Iterator[Event]:
        """Run until every row has a prop or has failed, or until `should_stop`; then the running jobs end after a step.

        Raises RunError and ExportError; what was done is kept.
        """
        if len(self.planned) >= MANY_ROWS:
            yield Waiting(f"{len(self.planned)} rows are written to the queue first")
        jobs = self._submit(queue)
        yield from self._collect_ended(queue, jobs, should_stop)
        while jobs and not should_stop():
            queue.step()
            yield self._progress(queue, jobs)
            yield from self._waiting(queue, jobs)
            yield from self._collect_ended(queue, jobs, lambda: should_stop() or queue.has_idle_device)
        queue.stop()
        end = time.monotonic() + GRACE_S
        while queue.running and time.monotonic() < end:
            queue.step()

    def _submit(self, queue: LocalQueue) -> dict[str, PlannedProp]:
        """Queue what is to be done; the rows by the name of their job."""
        try:
            jobs = {queue.submit(prop.request, prop.steps).job: prop for prop in self.open_props}
            queue.pause_waiting(set(jobs))
            for job in jobs:
                state = queue.records[job].state
                if state is JobState.PAUSED or (self._retry and state is JobState.FAILED):
                    queue.resume(job)
        except StorageError as error:
            raise RunError(str(error)) from error
        return jobs

    def _collect_ended(
        self, queue: LocalQueue, jobs: dict[str, PlannedProp], is_urgent: Callable[[], bool]
    ) -> Iterator[Event]:
        """Take the jobs that have ended out of `jobs`, until something `is_urgent`."""
        for job in [job for job in jobs if queue.records[job].state in (*ENDED, JobState.PAUSED)]:
            record = queue.records[job]
            if record.state is JobState.SUCCEEDED:
                yield self._collect(queue, jobs[job], record)
            else:
                yield self._fail(jobs[job], record)
            del jobs[job]
            if is_urgent():
                return

    def _collect(self, queue: LocalQueue, prop: PlannedProp, record: JobRecord) -> Event:
        """Write a prop's files, then the record that names them."""
        folder, summary = queue.job_folder(record.job), record.summary
        try:
            entry = collect(self.folder, self.library, prop, record.job, folder, summary.mesh_sha256)
        except DreamwrightError as error:
            return self._fail(prop, record, str(error))
        library = self.library.with_props([entry])
        self.folder.write(library)
        self.library = library
        return PropDone(prop, entry)

    def _fail(self, prop: PlannedProp, record: JobRecord, reason: str = "") -> Event:
        reason = reason or record.summary.message or f"the job was {record.state.value}"
        request = prop.request
        failure = Failure(prop.row.row, request.prompt, request.seed, request.preset, " ".join(reason.split()))
        self.failures.append(failure)
        return PropFailed(failure)

    def _progress(self, queue: LocalQueue, jobs: Mapping[str, PlannedProp]) -> Progress:
        known = {prop.ticket: queue.records[job].summary for job, prop in jobs.items()}
        taken = [
            min(known[prop.ticket].step, prop.steps) if prop.ticket in known else prop.steps for prop in self.planned
        ]
        running = {
            queue.records[job].summary.device: queue.records[job].summary.prompt for job in queue.running if job in jobs
        }
        rows = len(self.planned)
        steps = sum(prop.steps for prop in self.planned)
        return Progress(sum(taken), steps, rows - len(jobs) - len(self.failures), rows, running)

    def _waiting(self, queue: LocalQueue, jobs: Mapping[str, PlannedProp]) -> Iterator[Event]:
        messages = {queue.records[job].summary.message for job in jobs}
        yield from (Waiting(message) for message in messages if message.startswith(WAITS))
