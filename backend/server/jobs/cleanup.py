# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes files that are not needed any more: of ended attempts, of expired jobs, and orphaned job folders."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

from dreamwright.shared.job_states import ENDED, JobState

from ...scenes.initial_field import FIELD_FILE
from ..policy import Policy
from ..transport.authorized_keys import LOCAL
from ..workers.job_executor import INITIAL_FIELD_FILE
from .job_record import JobRecord
from .job_store import JobStore, StorageError
from .preview_file import PREVIEW_FILE
from .retention import FREED_AT_ONCE, RetainedJob, disposable_jobs, expired, file_size, folder_size
from .uploads import INPUT_MESH_FILE

log = logging.getLogger(__name__)


class Cleanup:
    """Removes files of the jobs of a store, as far as their states allow it."""

    def __init__(self, store: JobStore, policy: Policy) -> None:
        self._store, self._policy = store, policy

    def use_policy(self, policy: Policy) -> None:
        """Follow these limits from now on."""
        self._policy = policy

    def remove_attempt_files(self, job: str) -> None:
        """Remove what only attempts need once no attempt can follow: checkpoints, initial field and input mesh."""
        record, folder = self._store.records[job], self._store.job_folder(job)
        if record.state in (JobState.SUCCEEDED, JobState.CANCELLED):
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        if record.state in ENDED and not record.summary.resumable:
            _unlink(folder / INITIAL_FIELD_FILE)
            _unlink(folder / INPUT_MESH_FILE)

    def remove_expired(self) -> None:
        """Delete the ended jobs that the retention policy does not keep, and commit the folder's age."""
        try:
            self._store.save_counters()
            ended = [record for record in self._store.records.values() if record.state in ENDED]
            retained = [self._retained(record) for record in ended]
            for job in expired(retained, self._policy):
                log.info("job expired", extra={"job": job})
                self.delete(self._store.records[job])
        except StorageError as error:
            log.warning("expired jobs not deleted", extra={"why": str(error)})

    def _retained(self, record: JobRecord) -> RetainedJob:
        age_s, size = self._store.age.now_s() - record.ended_age, self.retained_bytes(record)
        fetched = record.summary.fetched or not record.summary.mesh_bytes
        return RetainedJob(record.job, age_s, size, fetched, record.summary.pinned, record.owner)

    def free(self) -> tuple[int, int, int]:
        """Delete the oldest FREED_AT_ONCE jobs that `is_disposable` names. Raises StorageError.

        Returns how many were deleted, the bytes of their files, and how many are left.
        """
        found = disposable_jobs(self._store.records.values())
        size = 0
        for record in found[:FREED_AT_ONCE]:
            size += self.retained_bytes(record)
            self.delete(record)
        return len(found[:FREED_AT_ONCE]), size, len(found[FREED_AT_ONCE:])

    def make_room(self, owner: str) -> None:
        """Delete an owner's oldest ended jobs above `ended_per_user`, before another is added. Raises StorageError.

        Otherwise, jobs that are submitted and cancelled in a loop would fill the memory before `remove_expired`.
        """
        if owner == LOCAL or self._store.ended_jobs(owner) <= self._policy.ended_per_user:
            return
        own = (r for r in self._store.records.values() if r.owner == owner and r.state in ENDED)
        for job in expired([self._retained(record) for record in own], self._policy):
            log.info("job makes room", extra={"job": job, "user": owner})
            self.delete(self._store.records[job])

    def pinned_bytes(self, owner: str) -> int:
        """Bytes of the files of an owner's pinned jobs."""
        pinned = (r for r in self._store.records.values() if r.owner == owner and r.summary.pinned)
        return sum(self.retained_bytes(record) for record in pinned)

    def retained_bytes(self, record: JobRecord) -> int:
        """Bytes of an ended job's files: mesh, preview and field, and whatever a resumable one continues from."""
        job, folder = record.summary, self._store.job_folder(record.job)
        size = job.mesh_bytes + file_size(folder / PREVIEW_FILE)
        if job.has_field:
            size += file_size(folder / FIELD_FILE)
        if job.resumable:
            size += folder_size(folder / "checkpoints")
            size += file_size(folder / INITIAL_FIELD_FILE) + file_size(folder / INPUT_MESH_FILE)
        return size

    def delete(self, record: JobRecord) -> None:
        """Delete an ended job and its files. Raises StorageError."""
        folder = self._store.job_folder(record.job)
        try:
            self._store.delete(record.job)
        except StorageError:
            # On a full disk the files must go first, to make room for the commit.
            shutil.rmtree(folder, ignore_errors=True)
            self._store.delete(record.job)
        shutil.rmtree(folder, ignore_errors=True)

    def remove_orphans(self) -> None:
        """Remove job folders without a job, which a server leaves when it ends between the two."""
        folder = self._store.folder / "jobs"
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in self._store.records and re.fullmatch("[0-9a-f]{16}", path.name):
                shutil.rmtree(path, ignore_errors=True)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("file of an ended job not removed", extra={"path": str(path), "why": str(error)})
