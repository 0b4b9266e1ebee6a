# SPDX-License-Identifier: GPL-3.0-or-later
"""A job as the server keeps it: its public summary, what only the server knows, and its row in the database."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, fields
from typing import Any, Protocol

from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.job_states import JobState
from dreamwright.shared.messages import JobSummary, SubmitJob
from dreamwright.shared.schema import from_map

# Fields of the summary that are computed anew at each start, with their values until then; rows do not hold them.
DERIVED = {"queue_position": 0, "ready_low_s": -1.0, "ready_high_s": -1.0}
SAVED = tuple(field.name for field in fields(JobSummary) if field.name not in DERIVED)
COLUMNS = ("job", "owner", "ticket", "state", "arrival", "attempts", "turn", "ended_age", "summary")


@dataclass(frozen=True)
class JobRecord:
    """One job. `summary` is what clients see; nothing else of a record leaves the server."""

    summary: JobSummary
    owner: str
    ticket: str  # of the submission; the same ticket of an owner is the same job
    arrival: int  # order of submission
    attempts: int  # failed in a row without progress
    turn: int = 0  # of the fair queue, taken when the job was started; 0: none, or given back by pausing
    ended_age: float = 0.0  # age of the state folder when the job ended, seconds

    @property
    def job(self) -> str:
        """The job's name."""
        return self.summary.job

    @property
    def state(self) -> JobState:
        """The job's state."""
        return JobState(self.summary.state)


class JobListener(Protocol):
    """Is called by the job store after each change."""

    def publish_job(self, record: JobRecord) -> None:
        """A job was added or changed."""

    def publish_progress(self, record: JobRecord) -> None:
        """Fields of a job that are not committed changed; several such changes may be published as one."""

    def publish_deletion(self, record: JobRecord) -> None:
        """A job was deleted."""


class NoListener:
    """A `JobListener` that ignores every change."""

    def publish_job(self, record: JobRecord) -> None:
        """Nothing."""

    def publish_progress(self, record: JobRecord) -> None:
        """Nothing."""

    def publish_deletion(self, record: JobRecord) -> None:
        """Nothing."""


def log_context(record: JobRecord, **more: Any) -> dict[str, Any]:
    """The fields that every log line about an attempt has, and `more`."""
    job = record.summary
    return {"job": job.job, "user": record.owner, "attempt": job.attempt, "device": job.device, **more}


def new_job_name() -> str:
    """A random name of 16 hexadecimal digits."""
    return secrets.token_hex(8)


def new_summary(
    request: SubmitJob, job: str, owner: str, step: int, steps: int, submitted_at: float, changed: int
) -> JobSummary:
    """The summary of a job that was just submitted: queued, at `step` of `steps`."""
    return JobSummary(
        job=job,
        state=JobState.QUEUED.value,
        prompt=request.prompt,
        negative=request.negative,
        model=request.model,
        preset=request.preset,
        seed=request.seed,
        settings=dict(request.settings),
        step=step,
        steps=steps,
        elapsed_s=0.0,
        eta_s=-1.0,
        queue_position=0,
        health="",
        message="",
        submitted_at=submitted_at,
        mesh_bytes=0,
        mesh_sha256="",
        changed=changed,
        owner=owner,
        priority=request.priority,
        parent_job=request.parent_job,
        mesh=request.mesh,
        group=request.group,
        group_index=request.group_index,
    )


def to_row(record: JobRecord) -> tuple[Any, ...]:
    """The values of COLUMNS."""
    summary = json.dumps({name: getattr(record.summary, name) for name in SAVED})
    return (
        record.job,
        record.owner,
        record.ticket,
        record.summary.state,
        record.arrival,
        record.attempts,
        record.turn,
        record.ended_age,
        summary,
    )


def from_row(row: tuple[Any, ...]) -> JobRecord:
    """The record of a row. Raises ValueError for one that `to_row` would not have written."""
    values = dict(zip(COLUMNS, row, strict=True))
    try:
        saved = json.loads(values["summary"])
        summary = from_map(JobSummary, {**saved, **DERIVED})
    except (ProtocolError, ValueError, TypeError) as error:
        raise ValueError(f"job {values['job']!r} is damaged: {error}") from error
    return JobRecord(
        summary, values["owner"], values["ticket"], values["arrival"], values["attempts"], values["turn"],
        values["ended_age"],
    )  # fmt: skip
