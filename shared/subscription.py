# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client knows of the events that it has asked for: which are news, and whether some were lost on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import limits
from .messages import JobChanged, JobForgotten, JobList

JOBS_KNOWN = (
    4 * limits.JOBS_LISTED
)  # whose newest change is remembered: a server that makes up jobs must not fill Blender's memory


@dataclass
class Subscription:
    """One client's; events are counted from each snapshot on."""

    wanted: bool = False
    previews_of: str = ""
    counted: int = 0  # events since the last snapshot
    asked: int = 0  # snapshots on their way; the server counts from each of them, so counts mean nothing meanwhile
    newest: dict[str, int] = field(default_factory=dict)  # by job, the newest `changed` that was handed out

    def answered(self, snapshot: JobList | None) -> None:
        """A snapshot came, or was refused (None)."""
        self.asked = max(0, self.asked - 1)
        self.counted = 0
        if snapshot is not None:
            self.newest = {job.job: job.changed for job in snapshot.jobs}

    def misses(self, event: JobChanged | JobForgotten) -> bool:
        """Count an event; whether some were lost before it, so that everything must be asked for again."""
        self.counted += 1
        return event.count != self.counted and not self.asked

    def is_news(self, event: JobChanged | JobForgotten) -> bool:
        """Whether an event is newer than what was handed out; remembered as such."""
        if isinstance(event, JobForgotten):
            self.newest.pop(event.job, None)
            return True
        if event.job.changed <= self.newest.get(event.job.job, -1):
            return False
        self.newest[event.job.job] = event.job.changed
        while len(self.newest) > JOBS_KNOWN:
            del self.newest[next(iter(self.newest))]
        return True
