# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of one connection as the panel shows it: jobs, previews, downloads, capabilities. Does not import bpy."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import addresses, job_groups, key_store, labels, storage
from .job_requests import JobRequests
from .mesh_downloads import MeshDownloads
from .newest_previews import NewestPreviews
from .pending_submissions import PendingSubmissions
from .preview_history import PreviewHistory
from .server_models import ServerModels
from .session_events import (
    JobEnded,
    JobStarted,
    MeshDownloaded,
    Notice,
    PreviewReceived,
    SessionEvent,
    ThumbnailReady,
)
from .shared import __version__
from .shared.capabilities import Capabilities
from .shared.credentials import ConnectionString, is_connection_string
from .shared.job_states import ENDED, JobState
from .shared.live_mesh_messages import LiveMeshFrame
from .shared.mesh_file import MeshFile
from .shared.messages import (
    GetCapabilities,
    JobChanged,
    JobDeleted,
    JobList,
    JobSummary,
    PreviewFrame,
    ServerShutdown,
    SubmitJob,
)
from .shared.model_messages import CapabilitiesChanged, ModelDownloadChanged
from .watched_jobs import WatchedJobs
from .wording import say

if TYPE_CHECKING:
    from .shared.client import Client
    from .shared.transfer import Download

CLOSED, ONLINE = "closed", "online"  # values of connection_state.ConnectionState, whose client needs zmq
MAX_PREVIEWED_JOBS = 8  # jobs whose previews are kept


class Session(WatchedJobs, JobRequests):
    """All state that the panel draws. Call `tick` often; `revision` grows whenever something to draw changes."""

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
        here: Callable[[], Any] = lambda: None,
    ) -> None:
        """`here` names the place, such as a scene, in which the user asks for something."""
        self.folder, self.address, self.here = folder, "", here
        self.keys = key_store.KeyStore(folder)
        self.revision = 0
        self.connection_state, self.reason = CLOSED, say("Not connected")
        self.capabilities: Capabilities | None = None
        self.jobs: dict[str, JobSummary] = {}  # newest first
        self.previews: dict[str, PreviewHistory] = {}
        self.newest_previews = NewestPreviews(clock)
        self.shown_jobs: list[str] = []  # whose newest previews are wanted, the most important first
        self.open_groups: set[str] = set()  # groups whose jobs have rows in the list
        self.picked: dict[str, str] = {}  # the job that the user picked, by group
        self.submissions = PendingSubmissions(folder, self._on_submitted, self.notify, self._mark_changed)
        self._downloads = MeshDownloads(self._on_mesh, self.notify, self._mark_changed)
        self.models = ServerModels(self._request, self.notify, self._mark_changed, self._request_capabilities)
        self.submitted_jobs: dict[str, str] = {}  # job by ticket, of this session
        self._places: dict[str, Any] = {}  # by ticket of this session: where it was submitted
        self.notices: deque[Notice] = deque(maxlen=5)
        self._clock = clock
        self._client: Client | None = None
        self._epoch = ""
        self._events: list[SessionEvent] = []

    # --- connection

    @property
    def is_online(self) -> bool:
        """Whether the server answers requests now."""
        return self.connection_state == ONLINE

    @property
    def is_open(self) -> bool:
        """Whether the user wants a connection, established or not."""
        return self._client is not None

    @property
    def round_trip_s(self) -> float:
        """Round-trip time of the latest greeting, in seconds; 0 while unknown."""
        return self._client.round_trip_s if self._client else 0.0

    @property
    def pending(self) -> dict[str, SubmitJob]:
        """Submissions that the server has not answered, by ticket."""
        return self.submissions.requests

    @property
    def downloads(self) -> dict[str, Download]:
        """Downloads of meshes that are in progress, by job."""
        return self._downloads.active

    def show_cached(self, address: str) -> None:
        """Show the capabilities of the server at `address` as they were at the last connection."""
        if address != self.address:
            self.address, self.capabilities = address, storage.load_capabilities(self.folder, address)
            self.jobs, self.previews = {}, {}
            self.models.restarted()
            self.newest_previews.clear()
            self.submissions.load(address)
            self.keys.show(address)
            self.revision += 1

    def accept_connection_string(self, text: str) -> ConnectionString:
        """Store the server key of a connection string. Raises ValueError."""
        server, is_changed = self.keys.accept(text)
        if is_changed:
            self.notify(
                say(
                    "The key of {address} has changed to {fingerprint}; check that the server shows the same "
                    "fingerprint",
                    address=server.address,
                    fingerprint=server.fingerprint,
                ),
                False,
            )
        self.keys.show(self.address)
        self.revision += 1
        return server

    def connect(self, address: str) -> None:
        """Start connecting, by an address or a connection string.

        Raises ValueError for an invalid address or an unknown server key, ImportError when zmq cannot be loaded.
        """
        if is_connection_string(address):
            address = self.accept_connection_string(address).address
        fault = addresses.address_fault(address) or addresses.key_fault(
            address, key_store.server_key(self.folder, address) is not None
        )
        if fault:
            raise ValueError(fault)
        # Imported at the first connection: Windows locks a loaded library, and an unused add-on must stay removable.
        import zmq

        from .shared.client import Client

        self.disconnect()
        self.show_cached(address)
        credentials, software = self.keys.credentials_for(address), f"blender add-on {__version__}"
        client_id = storage.client_id(self.folder)
        self._client = Client(address, client_id, software, self._clock, credentials=credentials)
        try:
            self._client.connect()
        except zmq.ZMQError as error:
            self.disconnect()
            raise ValueError(
                say("The server address {address} cannot be used: {error}", address=address, error=error)
            ) from error
        self.submissions.client = self._client
        self._subscribe()
        self.tick()

    def disconnect(self) -> None:
        """Close the connection. Jobs continue on the server and are listed again after the next connection."""
        self._downloads.cancel()
        self.submissions.disconnect()
        self.newest_previews.disconnect()
        if self._client is not None:
            self._client.close()
            self._client = None
        self._epoch = ""
        self._set_state(CLOSED, say("Not connected"))

    def _set_state(self, state: str, reason: str) -> None:
        if (state, reason) != (self.connection_state, self.reason):
            self.connection_state, self.reason = state, reason
            self.revision += 1

    # --- requests

    def notify(self, text: str, is_error: bool = True, fix: str = "") -> None:
        """Show a message in the panel; a repeated message moves to the end."""
        notice = Notice(text, is_error, fix)
        if notice in self.notices:
            self.notices.remove(notice)
        self.notices.append(notice)
        self.revision += 1

    def submit(
        self,
        prompt: str,
        negative: str,
        model: str,
        preset: str,
        seed: int,
        settings: dict[str, Any],
        parent_job: str = "",
        mesh: bytes = b"",
        group: str = "",
        group_index: int = 0,
    ) -> str:
        """Submit a job and return its ticket. Raises ProtocolError for an invalid field.

        It starts from the field of `parent_job`, or refines the mesh file `mesh`, when given. The request is stored on
        disk and repeated with the same ticket, across reconnections and restarts of Blender, until it is answered.
        """
        request = SubmitJob(
            "", prompt, negative, model, preset, seed, settings, parent_job=parent_job, group=group,
            group_index=group_index,
        )  # fmt: skip
        ticket = self.submissions.add(self.address if self.is_open else "", request, mesh)
        self._places[ticket] = self.here()
        return ticket

    def groups(self) -> dict[str, list[JobSummary]]:
        """The groups in the list, each with its jobs by their place."""
        return job_groups.groups_of(self.jobs.values())

    def cancel_pending(self, ticket: str) -> None:
        """Stop sending a submission that was not answered. If the server has created the job, the list shows it."""
        self.submissions.remove(ticket)

    def _on_submitted(self, ticket: str, job: JobSummary) -> None:
        self.submitted_jobs[ticket] = job.job
        self._take_job(job)
        self._events.append(JobStarted(job, self._places.pop(ticket, None)))

    def _mark_changed(self) -> None:
        self.revision += 1

    def download_mesh(self, job: str, is_automatic: bool = False, place: Any = None) -> None:
        """Download a job's mesh, which is wanted in `place`, else here; `tick` returns it as `MeshDownloaded`.

        Raises ValueError when there is none.
        """
        summary = self.jobs.get(job)
        if summary is None or not summary.mesh_bytes or self._client is None:
            raise ValueError(say("This job has no mesh to import yet"))
        self._downloads.start(self._client, summary, is_automatic, self.here() if place is None else place)

    def _on_mesh(self, job: JobSummary, mesh: MeshFile, is_automatic: bool, place: Any) -> None:
        self._events.append(MeshDownloaded(self.jobs.get(job.job, job), mesh, is_automatic, place))

    # --- events

    def tick(self, budget_s: float = 0.004) -> list[SessionEvent]:
        """Process what the server sent, for at most about `budget_s` seconds; the events since the last call."""
        if self._client is not None:
            arrived = self._client.tick(budget_s)
            if self._client.epoch != self._epoch:
                self._epoch = self._client.epoch
                self.models.restarted()
                self._request_capabilities()  # a restarted server may have others
            for event in arrived:
                self._take(event)
            if self.is_online:
                self.newest_previews.request(self._client, self.jobs, self.shown_jobs)
        if ready := self.newest_previews.decode_next():
            self._events.append(ThumbnailReady(ready))
        events, self._events = self._events, []
        return events

    def _take(self, event: Any) -> None:
        if isinstance(event, JobChanged):
            self._take_job(event.job)
        elif isinstance(event, JobDeleted):
            self.jobs.pop(event.job, None)
            self.previews.pop(event.job, None)
            self.newest_previews.remove(event.job)
            self.revision += 1
        elif isinstance(event, JobList):
            for deleted in set(self.jobs) - {job.job for job in event.jobs}:
                del self.jobs[deleted]
                self.newest_previews.remove(deleted)
            for job in event.jobs:
                self._take_job(job)
            self.models.take_snapshot(event)
            self.revision += 1
        elif isinstance(event, (ModelDownloadChanged, CapabilitiesChanged)):
            self.models.take(event)
        elif isinstance(event, PreviewFrame):
            self._take_preview(event)
        elif isinstance(event, LiveMeshFrame):
            self._live_mesh = event
        elif isinstance(event, ServerShutdown):
            self.notify(event.message, False)
        else:
            was_online = self.is_online
            self._set_state(event.state.value, event.reason)
            if self.is_online and not was_online:
                self._on_reconnected()

    def _take_job(self, job: JobSummary) -> None:
        old = self.jobs.get(job.job)
        if old is not None and old.changed > job.changed:
            return
        self.jobs[job.job] = job
        if old is None:
            self.jobs = dict(sorted(self.jobs.items(), key=lambda item: (-item[1].submitted_at, item[0])))
        elif JobState(job.state) in ENDED and JobState(old.state) not in ENDED:
            self._events.append(JobEnded(job))
            if job.state == JobState.FAILED.value:
                self.notify(
                    say(
                        "“{prompt}” failed: {reason}",
                        prompt=labels.short(job.prompt),
                        reason=job.message or say("see the log of the server"),
                    )
                )
        self.revision += 1

    def _take_preview(self, frame: PreviewFrame) -> None:
        history = self.previews.pop(frame.job, None) or PreviewHistory()
        history.add(frame)
        self.previews[frame.job] = history
        while len(self.previews) > MAX_PREVIEWED_JOBS:
            del self.previews[next(iter(self.previews))]
        self.newest_previews.add(frame)
        self._events.append(PreviewReceived(frame.job))

    def _request_capabilities(self) -> None:
        def on_reply(reply: Any) -> None:
            if not isinstance(reply, Capabilities):
                self._report_failure(say("The server did not send its capabilities"), reply)
                return
            self.capabilities = reply
            self.revision += 1
            try:
                storage.save_capabilities(self.folder, self.address, reply)
            except OSError as error:
                self.notify(storage.save_fault(say("The server's capabilities"), self.folder, error), False)

        self._request(GetCapabilities(), on_reply)

    def _on_reconnected(self) -> None:
        self.submissions.send_all()
        self._downloads.resume()
