# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes of requests that no server has answered yet, and how far they are sent. Knows nothing of bpy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import storage
from .shared.messages import SubmitJob

if TYPE_CHECKING:
    from .shared.client import Client
    from .shared.transfer import MeshUpload

TRIES = 3  # times that a mesh is sent for one request: a server may let go of one that waits for long


class MeshOutbox:
    """By ticket; on disk they lie beside the requests, in `remembered`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._meshes: dict[str, bytes] = {}
        self._sent: dict[str, int] = {}  # how often the server has taken all of it
        self._there: set[str] = set()  # it has it now, as far as is known
        self.uploads: dict[str, MeshUpload] = {}

    def put(self, ticket: str, data: bytes) -> None:
        """A new request's mesh."""
        self._meshes[ticket] = data

    def drop(self, ticket: str) -> None:
        """The request is answered or given up."""
        upload = self.uploads.pop(ticket, None)
        if upload is not None:
            upload.cancel()
        for known in (self._meshes, self._sent):
            known.pop(ticket, None)
        self._there.discard(ticket)

    def stop(self) -> None:
        """The connection is given up; what is known of the server with it."""
        for upload in self.uploads.values():
            upload.cancel()
        self.uploads.clear()
        self._there.clear()

    def is_there(self, ticket: str) -> bool:
        """Whether the request itself may be sent now."""
        return ticket in self._there

    def may_try_again(self, ticket: str) -> bool:
        """The server has the mesh no more; whether it is worth sending once more."""
        self._there.discard(ticket)
        return self._sent.get(ticket, 0) < TRIES

    def share(self, ticket: str) -> float:
        """How much of a request's mesh the server has, 0 to 1; 1 for a request without one under way."""
        upload = self.uploads.get(ticket)
        return 1.0 if upload is None else upload.share

    def send(
        self, client: Client, asked: SubmitJob, on_end: Callable[[Any], None], on_progress: Callable[[], None]
    ) -> None:
        """Send the mesh of a request, or go on with it. Raises ValueError when it is no more on this computer."""
        if asked.ticket in self.uploads:
            self.uploads[asked.ticket].resume()
            return
        data = self._meshes.get(asked.ticket) or storage.recall_mesh(self._folder, asked)
        if data is None:
            raise ValueError("it is no more on this computer; start it again")
        from .shared.transfer import MeshUpload

        percent = 0

        def progressed() -> None:
            nonlocal percent
            if int(100 * upload.share) != percent:
                percent = int(100 * upload.share)
                on_progress()

        def ended(result: Any) -> None:
            self.uploads.pop(asked.ticket, None)
            if isinstance(result, str):
                self._there.add(asked.ticket)
                self._sent[asked.ticket] = self._sent.get(asked.ticket, 0) + 1
            on_end(result)

        upload = MeshUpload(client, data, ended, progressed)
        self.uploads[asked.ticket] = upload
        upload.start()
