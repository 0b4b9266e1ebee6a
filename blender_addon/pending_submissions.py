# SPDX-License-Identifier: GPL-3.0-or-later
"""Submissions without an answer: kept on disk, sent again until the server answers. Does not import bpy."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import labels, storage
from .pending_uploads import PendingUploads
from .shared.codec import check_request
from .shared.errors import RequestError, RequestTimeout
from .shared.messages import JobReply, JobSummary, SubmitJob
from .wording import say

if TYPE_CHECKING:
    from .shared.client import Client


class PendingSubmissions:
    """Submissions to the server at one address. `on_submitted` is called with the ticket and the created job."""

    def __init__(
        self,
        folder: Path,
        on_submitted: Callable[[str, JobSummary], None],
        notify: Callable[[str, bool], None],
        on_change: Callable[[], None],
    ) -> None:
        self.requests: dict[str, SubmitJob] = {}  # by ticket, oldest first
        self.refused: dict[str, RequestError] = {}  # by ticket, until somebody takes the entry
        self.uploads = PendingUploads(folder)  # meshes that the server must have before their request
        self.client: Client | None = None
        self._folder = folder
        self._on_submitted, self._notify, self._on_change = on_submitted, notify, on_change

    def load(self, address: str) -> None:
        """Replace the submissions by those stored for the server at `address`."""
        self.requests = storage.load_submissions(self._folder, address)

    def add(self, address: str, request: SubmitJob, mesh: bytes = b"") -> str:
        """Add a submission, with the mesh that it refines, send it, and return its ticket, a new one if it has none.

        It is stored for the server at `address`; "" stores nothing. Raises ProtocolError for an invalid field.
        """
        digest = hashlib.sha256(mesh).hexdigest() if mesh else ""
        request = check_request(replace(request, ticket=request.ticket or uuid.uuid4().hex, mesh=digest))
        self.requests[request.ticket] = request
        if mesh:
            self.uploads.add(request.ticket, mesh)
        self._on_change()
        if address:
            self._on_disk(lambda: storage.save_submission(self._folder, address, request, mesh))
        self._send(request)
        return request.ticket

    def remove(self, ticket: str) -> None:
        """Forget a submission, because it was answered or is no longer wanted."""
        if self.requests.pop(ticket, None) is not None:
            self.uploads.remove(ticket)
            self._on_disk(lambda: storage.delete_submission(self._folder, ticket))
            self._on_change()

    def send_all(self) -> None:
        """Send everything again, after a reconnection."""
        for request in list(self.requests.values()):
            self._send(request)

    def disconnect(self) -> None:
        """The connection is closed; submissions stay for the next one."""
        self.uploads.disconnect()
        self.client = None

    def _on_disk(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            self._notify(storage.save_fault(say("Unanswered requests"), self._folder, error), False)

    def _send(self, request: SubmitJob) -> None:
        if request.mesh and self.client is not None and not self.uploads.is_uploaded(request.ticket):
            self._upload(self.client, request)
            return

        def on_reply(reply: Any) -> None:
            if isinstance(reply, RequestTimeout):
                return  # sent again after the next connection
            lacks_mesh = isinstance(reply, RequestError) and reply.code == "not-ready" and request.mesh
            may_retry = lacks_mesh and request.ticket in self.requests and self.client is not None
            if may_retry and self.client is not None and self.uploads.may_retry(request.ticket):
                self._upload(self.client, request)
                return
            self.remove(request.ticket)
            if isinstance(reply, JobReply):
                self._on_submitted(request.ticket, reply.job)
            else:
                if isinstance(reply, RequestError):
                    self.refused[request.ticket] = reply
                what = say("The refinement was not started") if request.mesh else say("The prop was not started")
                self._report_failure(what, reply)

        if self.client is None:
            on_reply(RequestError("not-now", say("not connected to a server")))
        else:
            self.client.request(request, on_reply)

    def _upload(self, client: Client, request: SubmitJob) -> None:
        def on_end(result: Any) -> None:
            self._on_change()
            if isinstance(result, RequestError):
                self.remove(request.ticket)
                self._report_failure(say("The mesh was not sent"), result)
            else:
                self._send(request)

        try:
            self.uploads.send(client, request, on_end, self._on_change)
        except ValueError as error:
            self.remove(request.ticket)
            self._notify(
                say("The mesh for “{prompt}” was not sent: {error}", prompt=labels.short(request.prompt), error=error),
                True,
            )

    def _report_failure(self, what: str, reply: Any) -> None:
        why = (
            str(reply)
            if isinstance(reply, RequestError)
            else say("the server sent an unexpected {kind}", kind=type(reply).__name__)
        )
        self._notify(f"{what}: {why}", True)
