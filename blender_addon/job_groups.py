# SPDX-License-Identifier: GPL-3.0-or-later
"""Groups of jobs in the list: which rows there are, and what a group's row says. Does not import bpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from . import labels
from .shared.job_states import ENDED, JobState
from .shared.messages import JobSummary
from .wording import say


@dataclass(frozen=True)
class ListRow:
    """A row of the list: a job, or the heading of a group (`job` is ""). `group` is "" for a job of no group."""

    job: str
    group: str


def groups_of(jobs: Iterable[JobSummary]) -> dict[str, list[JobSummary]]:
    """The groups with at least two jobs that are not being discarded, each with its jobs by their place.

    What is left of a group after the others were discarded is a job like any other.
    """
    found: dict[str, list[JobSummary]] = {}
    for job in jobs:
        if job.group and not job.discarded:
            found.setdefault(job.group, []).append(job)
    return {
        group: sorted(members, key=lambda job: (job.group_index, job.job))
        for group, members in found.items()
        if len(members) > 1
    }


def list_rows(jobs: Mapping[str, JobSummary], opened: Collection[str]) -> list[ListRow]:
    """The rows for jobs in the order of `jobs`; a group stands where its first job does, and its jobs below it.

    The jobs of a group have rows when it is in `opened`. Jobs that are being discarded have none.
    """
    groups, placed, rows = groups_of(jobs.values()), set[str](), list[ListRow]()
    for job in jobs.values():
        if job.discarded or job.group in placed:
            continue
        if job.group not in groups:
            rows.append(ListRow(job.job, ""))
            continue
        placed.add(job.group)
        rows.append(ListRow("", job.group))
        if job.group in opened:
            rows.extend(ListRow(member.job, job.group) for member in groups[job.group])
    return rows


def row_of(rows: Sequence[ListRow], jobs: Mapping[str, JobSummary], job: str, group: str) -> int:
    """The row of a job, else the heading of its group, else that of `group`; -1 when there is none.

    A group without a heading is a single job: its row is meant then.
    """
    if not job and not group:
        return -1
    label = jobs[job].group if job in jobs else group
    places = [index for index, row in enumerate(rows) if job and row.job == job]
    places += [index for index, row in enumerate(rows) if label and row.group == label and not row.job]
    places += [index for index, row in enumerate(rows) if label and row.job and jobs[row.job].group == label]
    return places[0] if places else -1


def progress_fraction(members: Sequence[JobSummary]) -> float:
    """Progress of a group from 0 to 1: the mean of its jobs; those that have ended count as 1."""
    shares = [1.0 if JobState(job.state) in ENDED else labels.progress_fraction(job) for job in members]
    return sum(shares) / len(shares) if shares else 0.0


def state_text(members: Sequence[JobSummary]) -> str:
    """How many jobs of a group are in which state: "2 of 4 ready, 1 running"."""
    count = Counter(job.state for job in members)
    parts = [say("{ready} of {count} ready", ready=count.pop(JobState.SUCCEEDED.value, 0), count=len(members))]
    order = [JobState.RUNNING, JobState.FAILED, JobState.CANCELLED, JobState.CANCELLING, JobState.PAUSED]
    parts += [f"{count[state.value]} {say(state.value)}" for state in order if count[state.value]]
    return ", ".join(parts)


def has_ended(members: Iterable[JobSummary]) -> bool:
    """Whether no job of a group has anything left to do."""
    return all(JobState(job.state) in ENDED for job in members)
