# SPDX-License-Identifier: GPL-3.0-or-later
"""Job states and the table of allowed transitions, for server, client, panel, tests and docs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class JobState(str, Enum):
    """State of a job. The value is sent over the wire."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"  # stops at the next step; its present field is being meshed
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED}),
    # To QUEUED when its worker or the server exited: it resumes from its checkpoint.
    JobState.RUNNING: frozenset(
        {JobState.QUEUED, JobState.PAUSED, JobState.CANCELLING, JobState.SUCCEEDED, JobState.FAILED}
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset({JobState.QUEUED}),  # resumed from a checkpoint
    JobState.CANCELLED: frozenset(),
}


def check_transition(old: JobState, new: JobState) -> None:
    """Raise ValueError for a transition that the table does not allow."""
    if new not in TRANSITIONS[old]:
        allowed = ", ".join(sorted(state.value for state in TRANSITIONS[old])) or "none, it has ended"
        raise ValueError(f"a {old.value} job cannot become {new.value}; allowed transitions: {allowed}")
