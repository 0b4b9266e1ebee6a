# SPDX-License-Identifier: GPL-3.0-or-later
"""The states of jobs that a client's events carry."""

from __future__ import annotations

from typing import Any

from dreamwright.shared.messages import JobChanged, JobList, JobSummary


def jobs_in(event: Any) -> tuple[JobSummary, ...]:
    """The jobs of a list or of a change; empty for any other event."""
    if isinstance(event, JobList):
        return event.jobs
    return (event.job,) if isinstance(event, JobChanged) else ()
