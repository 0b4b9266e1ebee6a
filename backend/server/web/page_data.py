# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages of the server as the JSON that the page shows: only what it shows."""

from __future__ import annotations

import dataclasses
from typing import Any

from dreamwright.shared.capabilities import Capabilities
from dreamwright.shared.messages import JobSummary
from dreamwright.shared.status import ServerStatus

JOB_FIELDS = (
    "job",
    "state",
    "prompt",
    "model",
    "preset",
    "step",
    "steps",
    "eta_s",
    "queue_position",
    "health",
    "message",
    "submitted_at",
    "mesh_bytes",
    "changed",
    "owner",
    "priority",
    "device",
    "ready_low_s",
    "ready_high_s",
    "pinned",
    "fetched",
    "resumable",
    "discarded",
    "preview_step",
)


def job_data(job: JobSummary) -> dict[str, Any]:
    """A job as the page shows it."""
    return {name: getattr(job, name) for name in JOB_FIELDS}


def status_data(status: ServerStatus) -> dict[str, Any]:
    """Devices, users and disk; the jobs come by themselves."""
    return {
        "software": status.software,
        "sees_all": status.sees_all,
        "is_closing": status.is_closing,
        "connections": status.connections,
        "disk_used_bytes": status.disk_used_bytes,
        "disk_free_bytes": status.disk_free_bytes,
        "jobs_open": status.jobs_open,
        "users_known": status.users_known,
        "devices": [dataclasses.asdict(device) for device in status.devices],
        # Whole minutes: a time that always changes would be sent every two seconds.
        "users": [{**dataclasses.asdict(user), "seen_s": _minutes(user.seen_s)} for user in status.users],
    }


def models_data(found: Capabilities) -> list[dict[str, Any]]:
    """The models that jobs can use now."""
    return [
        {"name": model.name, "family": model.family, "summary": model.summary} for model in found.models if model.ready
    ]


def _minutes(seconds: float) -> float:
    return -1.0 if seconds < 0 else 60.0 * (seconds // 60.0)
