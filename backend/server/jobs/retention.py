# SPDX-License-Identifier: GPL-3.0-or-later
"""Which ended jobs are deleted, and an age that a jump of the wall clock cannot increase."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dreamwright.shared.errors import RequestError
from dreamwright.shared.job_states import ENDED
from dreamwright.shared.numbers import number_text

from ..policy import GIGABYTE, Policy
from ..transport.authorized_keys import LOCAL
from .job_record import JobRecord

DAY_S = 86_400.0
FREED_AT_ONCE = 50  # jobs that one request deletes; each is a write to the disk, for which everybody waits
UNFETCHED_FACTOR = 2.0  # a mesh that nobody has fetched is kept this many times as long


@dataclass(frozen=True)
class RetainedJob:
    """An ended job and the disk space that it uses."""

    job: str
    age_s: float  # since its end
    size: int  # bytes of its files
    fetched: bool  # its whole mesh was fetched, or there is none
    pinned: bool
    owner: str = LOCAL


def expired(retained: Iterable[RetainedJob], policy: Policy) -> list[str]:
    """Jobs to delete: those too old, then the oldest above a limit, fetched ones first; never pinned ones.

    The limits of one user do not hold for LOCAL: without keys one user is everybody, and has the limits of all.
    """
    jobs = list(retained)
    limit_s = policy.keep_days * DAY_S
    gone = {
        job.job for job in jobs if not job.pinned and job.age_s > limit_s * (1.0 if job.fetched else UNFETCHED_FACTOR)
    }
    by_owner: dict[str, list[RetainedJob]] = {}
    for job in jobs:
        if job.job not in gone and job.owner != LOCAL:
            by_owner.setdefault(job.owner, []).append(job)
    for own in by_owner.values():
        pinned = sum(job.size for job in own if job.pinned)
        gone |= _excess(own, policy.keep_gb_per_user * GIGABYTE - pinned, policy.ended_per_user)
    gone |= _excess((job for job in jobs if job.job not in gone), policy.keep_gb * GIGABYTE, None)
    return sorted(gone)


def _excess(jobs: Iterable[RetainedJob], size_limit: float, count_limit: int | None) -> set[str]:
    """Unpinned jobs, the fetched and then the oldest first, without which the others keep to both limits."""
    left = sorted((job for job in jobs if not job.pinned), key=lambda job: (not job.fetched, -job.age_s))
    too_many = 0 if count_limit is None else len(left) - count_limit
    excess, gone = sum(job.size for job in left) - size_limit, set()
    for index, job in enumerate(left):
        if index < too_many or (excess > 0 and job.size):
            gone.add(job.job)
            excess -= job.size
        elif excess <= 0:
            break
    return gone


def is_disposable(record: JobRecord) -> bool:
    """Whether an ended job is deleted when somebody frees the disk: nothing is lost that nobody has."""
    job = record.summary
    return record.state in ENDED and not job.pinned and (job.fetched or not job.mesh_bytes)


def disposable_jobs(records: Iterable[JobRecord]) -> list[JobRecord]:
    """Jobs of `is_disposable`, the oldest first."""
    return sorted((record for record in records if is_disposable(record)), key=lambda record: record.ended_age)


def check_pinned_bytes(used: int, more: int, limit_gb: float) -> None:
    """Raises RequestError when a user's pinned jobs and one more have more bytes than the user's ended jobs may."""
    if used + more > limit_gb * GIGABYTE:
        raise RequestError(
            "too-many",
            f"the user's pinned jobs use {used / 1e6:.1f} MB and this one {more / 1e6:.1f} MB; allowed are "
            f"{number_text(1000 * limit_gb)} MB a user; unpin or delete one first",
        )


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder; 0 if there is none."""
    return sum(file_size(path) for path in (folder.iterdir() if folder.is_dir() else ()))


def file_size(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class MonotonicAge:
    """Seconds for which the state folder has been in use: monotonic time, plus the time between two starts.

    Only the latter needs the wall clock, which may be wrong: a negative time counts as 0, more than a day as a day. A
    clock that jumps therefore deletes nothing too early; results may be kept longer.
    """

    LONGEST_GAP_S = DAY_S

    def __init__(self, before_s: float, saved_at: float, wall: Callable[[], float], clock: Callable[[], float]) -> None:
        self._wall, self._clock, self._started = wall, clock, clock()
        gap_s = wall() - saved_at if saved_at > 0 else 0.0
        self._before_s = before_s + min(max(gap_s, 0.0), self.LONGEST_GAP_S)

    def now_s(self) -> float:
        """The current age, seconds."""
        return self._before_s + self._clock() - self._started

    def to_save(self) -> tuple[float, float]:
        """(age, wall time), for the next start."""
        return self.now_s(), self._wall()
