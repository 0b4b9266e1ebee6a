# SPDX-License-Identifier: GPL-3.0-or-later
"""Which ended jobs are deleted, and an age that a jump of the wall clock cannot increase."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..policy import GIGABYTE, Policy

DAY_S = 86_400.0
UNFETCHED_FACTOR = 2.0  # a mesh that nobody has fetched is kept this many times as long


@dataclass(frozen=True)
class RetainedJob:
    """An ended job and the disk space that it uses."""

    job: str
    age_s: float  # since its end
    size: int  # bytes of its files
    fetched: bool  # its whole mesh was fetched, or there is none
    pinned: bool


def expired(retained: Iterable[RetainedJob], policy: Policy) -> list[str]:
    """Jobs to delete: those too old, then the oldest above the size limit, fetched ones first; never pinned ones."""
    free = [job for job in retained if not job.pinned]
    limit_s = policy.keep_days * DAY_S
    old = [job for job in free if job.age_s > limit_s * (1.0 if job.fetched else UNFETCHED_FACTOR)]
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
