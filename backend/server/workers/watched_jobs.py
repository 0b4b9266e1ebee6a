# SPDX-License-Identifier: GPL-3.0-or-later
"""Which running jobs have somebody who wants their live meshes: workers make none that nobody watches."""

from __future__ import annotations

from dreamwright.shared.job_states import JobState
from dreamwright.shared.live_mesh_messages import LiveMeshFrame

from ..jobs.job_store import JobStore
from ..transport.frame_stream import FrameStream
from .runner import Runner


class WatchedJobs:
    """Tells the runner of changes. Call `step` often."""

    def __init__(self, store: JobStore, live_meshes: FrameStream[LiveMeshFrame], runner: Runner) -> None:
        self._store, self._live_meshes, self._runner = store, live_meshes, runner
        self._told: set[str] = set()  # jobs whose workers know that they are watched

    def begin(self, job: str) -> None:
        """A new attempt of a job was assigned; its worker knows nothing."""
        self._told.discard(job)

    def step(self) -> None:
        """Tell workers whose live meshes are wanted now, and whose no longer."""
        records = self._store.records
        wanted = {
            job for job in self._live_meshes.wanted_jobs() if job in records and records[job].state is JobState.RUNNING
        }
        for job in wanted ^ self._told:
            self._runner.watch(job, job in wanted)
        self._told = wanted
