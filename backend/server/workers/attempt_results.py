# SPDX-License-Identifier: GPL-3.0-or-later
"""What the end of an attempt means for its job: the fields of its mesh, and settings that need less memory."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ...errors import DreamwrightError
from ...scenes.initial_field import FIELD_FILE
from ..jobs.job_record import JobRecord, log_context
from ..requests import has_vae, job_of
from .failure_policy import reduce_memory_settings
from .job_executor import MESH_FILE, file_hash
from .worker_protocol import JobFinished

log = logging.getLogger(__name__)

MESH_JOB_SETTINGS = ("model.vae_recompute",)  # the memory settings that a job on an uploaded mesh has


def mesh_fields(folder: Path, report: JobFinished) -> dict[str, Any]:
    """Size and hash of a finished job's mesh, and whether its field is kept. Raises OSError."""
    if report.mesh_sha256:
        size, digest = (folder / MESH_FILE).stat().st_size, report.mesh_sha256
    else:
        size, digest = file_hash(folder / MESH_FILE)
    return {"mesh_bytes": size, "mesh_sha256": digest, "has_field": (folder / FIELD_FILE).is_file()}


def less_memory(record: JobRecord) -> dict[str, str]:
    """Settings with which a job takes less memory; {} where there are none."""
    try:
        job = job_of(record.summary)
        found = reduce_memory_settings(job.config, has_vae(job.model))
    except DreamwrightError as error:
        log.warning("no memory settings found", extra=log_context(record, why=type(error).__name__))
        return {}
    return {name: value for name, value in found.items() if not record.summary.mesh or name in MESH_JOB_SETTINGS}
