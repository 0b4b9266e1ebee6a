# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that nobody needs any more: checkpoints of what has ended, results that were kept long enough, folders of nobody."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

from dreamwright.shared.job_states import ENDED, JobState

from ...scenes.initial_field import FIELD_FILE
from ..policy import Policy
from ..transport.event_publisher import EventPublisher
from ..workers.job_executor import ORIGIN_FILE
from .job_store import JobRecord, StorageError
from .retention import RetainedJob, expired, file_size, folder_size
from .uploads import INPUT_MESH_FILE

log = logging.getLogger(__name__)


class Cleanup:
    """Removes files; what a job is, the ledger says."""

    def __init__(self, herald: EventPublisher, policy: Policy) -> None:
        self._herald, self._ledger, self._policy = herald, herald.ledger, policy

    def clear(self, job: str) -> None:
        """Remove what only a job's attempts need, checkpoints, origin and a mesh that was sent, now that its end is written down and none follows."""
        entry, folder = self._ledger.entries[job], self._ledger.job_folder(job)
        if entry.state in (JobState.SUCCEEDED, JobState.CANCELLED):
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        if entry.state in ENDED and not entry.summary.resumable:
            _unlink(folder / ORIGIN_FILE)
            _unlink(folder / INPUT_MESH_FILE)

    def sweep(self) -> None:
        """Let go of what has been kept long enough, and write down the server's age."""
        try:
            self._ledger.save_facts()
            now = self._ledger.age.now_s()
            kept = [
                RetainedJob(
                    e.summary.job,
                    now - e.ended_age,
                    self._size(e),
                    e.summary.fetched or not e.summary.mesh_bytes,
                    e.summary.pinned,
                )
                for e in self._ledger.entries.values()
                if e.state in ENDED
            ]
            for job in expired(kept, self._policy):
                log.info("job kept long enough", extra={"job": job})
                self.drop(self._ledger.entries[job])
        except StorageError as fault:
            log.warning("results not swept", extra={"why": str(fault)})

    def _size(self, entry: JobRecord) -> int:
        """Bytes of an ended job's files that count: its mesh and field, and what one that can be resumed goes on from."""
        job, folder = entry.summary, self._ledger.job_folder(entry.summary.job)
        size = job.mesh_bytes
        if job.has_field:
            size += file_size(folder / FIELD_FILE)
        if job.resumable:
            size += (
                folder_size(folder / "checkpoints")
                + file_size(folder / ORIGIN_FILE)
                + file_size(folder / INPUT_MESH_FILE)
            )
        return size

    def drop(self, entry: JobRecord) -> None:
        """Remove an ended job and its files. Raises StorageError."""
        job = entry.summary.job
        try:
            self._ledger.forget(job)
        except StorageError:
            # On a full disk its files must go first to make room for the note that it is gone.
            shutil.rmtree(self._ledger.job_folder(job), ignore_errors=True)
            self._ledger.forget(job)
        shutil.rmtree(self._ledger.job_folder(job), ignore_errors=True)
        self._herald.forgotten(entry.owner, job)

    def clear_strangers(self) -> None:
        """Remove folders of jobs that were forgotten just before the server's end."""
        folder = self._ledger.folder / "jobs"
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in self._ledger.entries and re.fullmatch("[0-9a-f]{16}", path.name):
                shutil.rmtree(path, ignore_errors=True)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("file of an ended job stays", extra={"path": str(path), "why": str(error)})
