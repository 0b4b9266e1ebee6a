# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes of pending submissions, and their uploads. Does not import bpy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import storage
from .shared.messages import SubmitJob
from .wording import say

if TYPE_CHECKING:
    from .shared.client import Client
    from .shared.transfer import MeshUpload

MAX_UPLOADS = 3  # per submission: the server deletes an upload that waits too long for its submission


class PendingUploads:
    """Meshes by ticket; `storage` keeps them on disk beside their submissions."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._meshes: dict[str, bytes] = {}
        self._completed: dict[str, int] = {}  # complete uploads per ticket
        self._uploaded: set[str] = set()  # tickets whose mesh the server has, as far as is known
        self.uploads: dict[str, MeshUpload] = {}

    def add(self, ticket: str, data: bytes) -> None:
        """The mesh of a new submission."""
        self._meshes[ticket] = data

    def remove(self, ticket: str) -> None:
        """Forget the mesh of a submission that was answered or removed."""
        upload = self.uploads.pop(ticket, None)
        if upload is not None:
            upload.cancel()
        self._meshes.pop(ticket, None)
        self._completed.pop(ticket, None)
        self._uploaded.discard(ticket)

    def disconnect(self) -> None:
        """Stop all uploads; what the server has is unknown from now on."""
        for upload in self.uploads.values():
            upload.cancel()
        self.uploads.clear()
        self._uploaded.clear()

    def is_uploaded(self, ticket: str) -> bool:
        """Whether the server has the mesh, so that the submission can be sent."""
        return ticket in self._uploaded

    def may_retry(self, ticket: str) -> bool:
        """The server no longer has the mesh: whether to upload it again."""
        self._uploaded.discard(ticket)
        return self._completed.get(ticket, 0) < MAX_UPLOADS

    def share(self, ticket: str) -> float:
        """Uploaded fraction of a submission's mesh, 0 to 1; 1 when no upload is in progress."""
        upload = self.uploads.get(ticket)
        return 1.0 if upload is None else upload.share

    def send(
        self, client: Client, request: SubmitJob, on_end: Callable[[Any], None], on_progress: Callable[[], None]
    ) -> None:
        """Start or resume the upload of a submission's mesh. Raises ValueError when the mesh is no longer stored."""
        if request.ticket in self.uploads:
            self.uploads[request.ticket].resume()
            return
        data = self._meshes.get(request.ticket) or storage.load_mesh(self._folder, request)
        if data is None:
            raise ValueError(say("it is no longer stored on this computer; start the refinement again"))
        from .shared.transfer import MeshUpload  # needs zmq, which is loaded at the first connection

        percent = 0

        def report_progress() -> None:
            nonlocal percent
            if int(100 * upload.share) != percent:
                percent = int(100 * upload.share)
                on_progress()

        def finish(result: Any) -> None:
            self.uploads.pop(request.ticket, None)
            if isinstance(result, str):
                self._uploaded.add(request.ticket)
                self._completed[request.ticket] = self._completed.get(request.ticket, 0) + 1
            on_end(result)

        upload = MeshUpload(client, data, finish, report_progress)
        self.uploads[request.ticket] = upload
        upload.start()
