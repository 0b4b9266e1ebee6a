# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose previews and live meshes a session receives. Does not import bpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .shared.live_mesh_messages import LiveMeshFrame

if TYPE_CHECKING:
    from .shared.client import Client


class WatchedJobs:
    """Base of `Session`: the two jobs that are watched, and the newest live mesh."""

    _client: Client | None
    previewed_job = ""  # whose previews the server sends
    watched_job = ""  # whose live meshes the server sends
    _live_mesh: LiveMeshFrame | None = None  # the newest that was not taken

    def show_previews_of(self, job: str) -> None:
        """Receive the previews of this job only; "" for none."""
        if job != self.previewed_job:
            self.previewed_job = job
            self._subscribe()

    def watch_mesh_of(self, job: str) -> None:
        """Receive the live meshes of this job only; "" for none."""
        if job != self.watched_job:
            self.watched_job, self._live_mesh = job, None
            self._subscribe()

    def _subscribe(self) -> None:
        if self._client is not None:
            self._client.subscribe(self.previewed_job, self.watched_job)

    @property
    def has_live_mesh(self) -> bool:
        """Whether `take_live_mesh` has one."""
        return self._live_mesh is not None

    def take_live_mesh(self) -> LiveMeshFrame | None:
        """The newest live mesh since the last call, packed; None when there is none."""
        frame, self._live_mesh = self._live_mesh, None
        return frame
