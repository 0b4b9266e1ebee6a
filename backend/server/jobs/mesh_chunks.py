# SPDX-License-Identifier: GPL-3.0-or-later
"""Pieces of a job's mesh file, as clients fetch them."""

from __future__ import annotations

import logging

from dreamwright.shared.errors import RequestError
from dreamwright.shared.messages import Chunk

from ..workers.job_executor import MESH_FILE
from .job_record import JobRecord
from .job_store import JobStore, StorageError

log = logging.getLogger(__name__)


def fetch_mesh_chunk(store: JobStore, record: JobRecord, offset: int, size: int, is_owner: bool) -> Chunk:
    """At most `size` bytes of a job's mesh from byte `offset` on; the owner's last one is recorded as a fetch.

    Raises RequestError.
    """
    job = record.summary
    if not job.mesh_bytes:
        raise RequestError("not-ready", f"the job is {record.state.value} and has no mesh yet")
    try:
        with (store.job_folder(record.job) / MESH_FILE).open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise RequestError("internal", f"the mesh of job {record.job} cannot be read: {error.strerror}") from error
    if data and offset + len(data) >= job.mesh_bytes and not job.fetched and is_owner:
        try:
            store.update(record.job, fetched=True)
        except StorageError as error:  # the mesh is then kept longer
            log.warning("fetch not recorded", extra={"job": record.job, "why": str(error)})
    return Chunk(offset, data, job.mesh_bytes, job.mesh_sha256)
