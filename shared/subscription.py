# SPDX-License-Identifier: GPL-3.0-or-later
"""State of a client's event subscription: which events are new, and whether events were lost."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import limits
from .live_mesh_messages import LiveMeshFrame
from .messages import JobChanged, JobDeleted, JobList, PreviewFrame
from .model_messages import CapabilitiesChanged, ModelDownloadChanged

CountedEvent = JobChanged | JobDeleted | ModelDownloadChanged | CapabilitiesChanged

# Jobs whose latest revision is remembered: a server that invents jobs must not fill Blender's memory.
JOBS_REMEMBERED = 4 * limits.JOBS_LISTED


@dataclass
class Subscription:
    """State of one client; events are counted from the last snapshot on."""

    wanted: bool = False
    previews_of: str = ""
    meshes_of: str = ""
    count: int = 0  # events since the last snapshot
    snapshots_pending: int = 0  # the server restarts its count at each snapshot, so counts cannot be compared meanwhile
    newest: dict[str, int] = field(default_factory=dict)  # by job, the latest `changed` that was returned

    @property
    def has_frames(self) -> bool:
        """Whether previews or live meshes of a job are wanted."""
        return bool(self.previews_of or self.meshes_of)

    def wants(self, frame: PreviewFrame | LiveMeshFrame) -> bool:
        """Whether a frame is of the job that was chosen last: others may still be on their way."""
        return frame.job == (self.previews_of if isinstance(frame, PreviewFrame) else self.meshes_of)

    def on_snapshot(self, snapshot: JobList | None) -> None:
        """A snapshot arrived, or its request failed (None)."""
        self.snapshots_pending = max(0, self.snapshots_pending - 1)
        self.count = 0
        if snapshot is not None:
            self.newest = {job.job: job.changed for job in snapshot.jobs}

    def has_gap(self, event: CountedEvent) -> bool:
        """Count an event; True when events before it were lost, so that a snapshot is needed."""
        self.count += 1
        return event.count != self.count and not self.snapshots_pending

    def is_new(self, event: CountedEvent) -> bool:
        """Whether an event is newer than what was returned; it then counts as returned."""
        if isinstance(event, (ModelDownloadChanged, CapabilitiesChanged)):
            return True
        if isinstance(event, JobDeleted):
            self.newest.pop(event.job, None)
            return True
        if event.job.changed <= self.newest.get(event.job.job, -1):
            return False
        self.newest[event.job.job] = event.job.changed
        while len(self.newest) > JOBS_REMEMBERED:
            del self.newest[next(iter(self.newest))]
        return True
