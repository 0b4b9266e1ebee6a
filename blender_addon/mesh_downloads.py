# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads of meshes that are in progress. Does not import bpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import labels
from .shared.errors import RequestError
from .shared.mesh_file import MeshFile, decode_mesh
from .shared.messages import JobSummary
from .wording import say

if TYPE_CHECKING:
    from .shared.client import Client
    from .shared.transfer import Download


class MeshDownloads:
    """Downloads by job. `on_mesh` is called with the job, its mesh, whether the download was automatic, and where the
    mesh is wanted.
    """

    def __init__(
        self,
        on_mesh: Callable[[JobSummary, MeshFile, bool, Any], None],
        notify: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        self.active: dict[str, Download] = {}
        self._on_mesh, self._notify, self._on_change = on_mesh, notify, on_change

    def start(self, client: Client, job: JobSummary, is_automatic: bool, place: Any = None) -> None:
        """Download the mesh of a job, which is wanted in `place`, unless that is in progress."""
        if job.job in self.active:
            return
        from .shared.transfer import Download  # needs zmq, which is loaded at the first connection

        def on_end(result: Any) -> None:
            self.active.pop(job.job, None)
            self._on_change()
            if isinstance(result, RequestError):
                self._notify(say("The mesh was not downloaded: {result}", result=result))
                return
            try:
                mesh = decode_mesh(result)
            except ValueError as error:
                self._notify(
                    say("The mesh of “{prompt}” cannot be read: {error}", prompt=labels.short(job.prompt), error=error)
                )
                return
            self._on_mesh(job, mesh, is_automatic, place)

        self.active[job.job] = download = Download(client, job.job, "mesh", job.mesh_bytes, on_end)
        download.start()
        self._on_change()

    def resume(self) -> None:
        """Continue all downloads after a reconnection."""
        for download in list(self.active.values()):
            download.resume()

    def cancel(self) -> None:
        """Stop all downloads."""
        for download in self.active.values():
            download.cancel()
        self.active.clear()
