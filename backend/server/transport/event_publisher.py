# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves of jobs, each told to who may see it, with the places in line that it changed; progress is told now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dreamwright.shared.job_states import ENDED, JobState
from dreamwright.shared.messages import JobSummary

from ..jobs.job_store import JobStore
from ..monitoring.counters import Counters
from .subscribers import Audience

TELL_S = 0.25  # shortest time between two tellings of a running job's progress


class EventPublisher:
    """Between the ledger and the audience: nobody hears of a change before it is committed, nobody misses one."""

    def __init__(self, ledger: JobStore, audience: Audience, clock: Callable[[], float], tally: Counters) -> None:
        self.ledger, self.audience, self._clock, self.tally = ledger, audience, clock, tally
        self._told: dict[str, float] = {}  # by job, when its progress was last told
        self._untold: set[str] = set()

    def move(self, job: str, state: JobState, attempts: int | None = None, **fields: Any) -> JobSummary:
        """Change a job's state. Raises StorageError, and ValueError for an illegal move."""
        moved = self._with_places(job, lambda: self.ledger.move(job, state, attempts, **fields))
        if state in ENDED:
            self.tally.ended[state.value] += 1
        return moved

    def amend(self, job: str, **fields: Any) -> JobSummary:
        """Change what is committed of a job beside its state. Raises StorageError."""
        return self._with_places(job, lambda: self.ledger.amend(job, **fields))

    def note(self, job: str, **fields: Any) -> None:
        """Change what is not committed; it is told when its turn comes."""
        self.ledger.note(job, **fields)
        self._untold.add(job)

    def added(self, job: str, places: dict[str, int]) -> None:
        """Tell of a new job, and of the places that it changed since they were `places`."""
        self.tell(job)
        self._tell_places(places)

    def forgotten(self, owner: str, job: str) -> None:
        """Tell that a job is gone."""
        self._told.pop(job, None)
        self._untold.discard(job)
        self.audience.forgotten(owner, job)

    def tell(self, job: str) -> None:
        """Tell of a job at once."""
        self._told[job] = self._clock()
        self._untold.discard(job)
        entry = self.ledger.entries[job]
        self.audience.changed(entry.owner, entry.summary)

    def settle(self) -> None:
        """Tell what is due."""
        for job in list(self._untold):
            if self._clock() - self._told.get(job, float("-inf")) >= TELL_S:
                self.tell(job)
        self.audience.settle()

    def places(self) -> dict[str, int]:
        """Everybody's place in line."""
        return {name: entry.summary.queue_position for name, entry in self.ledger.entries.items()}

    def _with_places(self, job: str, change: Callable[[], Any]) -> JobSummary:
        before = self.places()
        change()
        before.pop(job)
        self.tell(job)
        self._tell_places(before)
        return self.ledger.entries[job].summary

    def _tell_places(self, before: dict[str, int]) -> None:
        for name, place in before.items():
            entry = self.ledger.entries.get(name)
            if entry is not None and entry.summary.queue_position != place:
                self.tell(name)
