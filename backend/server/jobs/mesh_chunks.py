# SPDX-License-Identifier: GPL-3.0-or-later
"""Pieces of a job's mesh file, as clients fetch them."""

from __future__ import annotations

from pathlib import Path

from dreamwright.shared.errors import RequestError
from dreamwright.shared.messages import Chunk

from ..workers.job_executor import MESH_FILE
from .job_record import JobRecord


def read_mesh_chunk(record: JobRecord, folder: Path, offset: int, size: int) -> Chunk:
    """At most `size` bytes of the mesh in a job's folder from byte `offset` on. Raises RequestError."""
    job = record.summary
    if not job.mesh_bytes:
        raise RequestError("not-ready", f"the job is {record.state.value} and has no mesh yet")
    try:
        with (folder / MESH_FILE).open("rb") as file:
            file.seek(offset)
            return Chunk(offset, file.read(size), job.mesh_bytes, job.mesh_sha256)
    except OSError as error:
        raise RequestError("internal", f"the mesh of job {record.job} cannot be read: {error.strerror}") from error
