# SPDX-License-Identifier: GPL-3.0-or-later
"""Which ended jobs have been kept long enough; and an age that a jump of the clock cannot add to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..policy import GIGABYTE, Policy

DAY_S = 86_400.0
UNFETCHED_FACTOR = 2.0  # a mesh that nobody fetched stays so many times as long


@dataclass(frozen=True)
class RetainedJob:
    """An ended job and what it costs to keep."""

    job: str
    age_s: float  # since its end
    size: int  # bytes of its files
    fetched: bool  # somebody took the whole mesh, or there is none
    pinned: bool


def expired(kept: Iterable[RetainedJob], policy: Policy) -> list[str]:
    """Jobs to let go: too old, or the oldest above the size, fetched before unfetched; a pinned one never."""
    free = [job for job in kept if not job.pinned]
    limit = policy.keep_days * DAY_S
    old = [job for job in free if job.age_s > limit * (1.0 if job.fetched else UNFETCHED_FACTOR)]
    gone = {job.job for job in old}
    left = sorted((job for job in free if job.job not in gone), key=lambda job: (not job.fetched, -job.age_s))
    excess = sum(job.size for job in left) - policy.keep_gb * GIGABYTE
    for job in left:
        if excess <= 0:
            break
        if job.size:
            gone.add(job.job)
            excess -= job.size
    return sorted(gone)


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder; 0 for none."""
    return sum(file_size(path) for path in (folder.iterdir() if folder.is_dir() else ()))


def file_size(path: Path) -> int:
    """Bytes of a file; 0 for none, which may have gone meanwhile."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class MonotonicAge:
    """Seconds that the state folder has been in use, by the monotonic clock, with the time between two starts added.

    Only that part needs the wall clock, which may be wrong: less than nothing counts as nothing, and more than a day as
    a day. So a clock that jumps deletes nothing before its time; results may stay longer.
    """

    LONGEST_REST_S = DAY_S

    def __init__(self, before_s: float, saved_at: float, wall: Callable[[], float], clock: Callable[[], float]) -> None:
        self._wall, self._clock, self._begun = wall, clock, clock()
        rest = wall() - saved_at if saved_at > 0 else 0.0
        self._before = before_s + min(max(rest, 0.0), self.LONGEST_REST_S)

    def now_s(self) -> float:
        """The age at this moment."""
        return self._before + self._clock() - self._begun

    def to_save(self) -> tuple[float, float]:
        """(age, wall time) for the next start."""
        return self.now_s(), self._wall()
