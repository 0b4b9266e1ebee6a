# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue in the order of `scheduling.sort_queue`, kept sorted: what is next takes a look at each user's first job.

A decision costs O(users + log jobs) instead of a sort of the whole queue.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator

from .scheduling import QueuedJob, RoundRobin

_Place = tuple[int, bool, int, int]  # turn, is its turn new, minus priority, arrival: smaller goes first


class QueueLines:
    """The queued jobs: a line for each user, and those that have a turn already."""

    def __init__(self) -> None:
        self._jobs: dict[str, QueuedJob] = {}
        self._lines: dict[str, list[tuple[int, int, str]]] = {}  # by user: (minus priority, arrival, job), sorted
        self._placed: list[tuple[_Place, str]] = []  # sorted

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[QueuedJob]:
        return iter(self._jobs.values())

    def put(self, job: QueuedJob) -> None:
        """Add a job, or replace what is known of it."""
        before = self._jobs.get(job.job)
        if before == job:
            return
        if before is not None:
            self.remove(job.job)
        self._jobs[job.job] = job
        if job.turn:
            bisect.insort(self._placed, (_placed_key(job), job.job))
        else:
            bisect.insort(self._lines.setdefault(job.owner, []), (-job.priority, job.arrival, job.job))

    def remove(self, name: str) -> None:
        """Remove a job if it is there."""
        job = self._jobs.pop(name, None)
        if job is None:
            return
        if job.turn:
            self._placed.remove((_placed_key(job), name))
            return
        line = self._lines[job.owner]
        del line[bisect.bisect_left(line, (-job.priority, job.arrival, name))]
        if not line:
            del self._lines[job.owner]

    def first(self, turns: RoundRobin) -> str:
        """The job that starts next; "" when there is none."""
        found: tuple[_Place, str] | None = self._placed[0] if self._placed else None
        for owner, line in self._lines.items():
            priority, arrival, name = line[0]
            place: _Place = (turns.of(owner), True, priority, arrival)
            if found is None or place < found[0]:
                found = place, name
        return "" if found is None else found[1]

    def turn_of(self, name: str, turns: RoundRobin) -> int:
        """The turn of a queued job. Raises KeyError for another."""
        job = self._jobs[name]
        if job.turn:
            return job.turn
        line = self._lines[job.owner]
        return turns.of(job.owner) + bisect.bisect_left(line, (-job.priority, job.arrival, name))


def _placed_key(job: QueuedJob) -> _Place:
    return job.turn, False, -job.priority, job.arrival
