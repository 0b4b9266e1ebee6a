# SPDX-License-Identifier: GPL-3.0-or-later
"""One Blender's dealings with one server: its jobs, previews, downloads and what it offers. Knows nothing of bpy."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import key_store, labels, storage
from .commands import Commands
from .pending_uploads import MeshOutbox
from .preview_frames import Frames
from .session_events import JobEnded, JobStarted, MeshArrived, NewFrame, Notice
from .shared import __version__
from .shared.codec import check_request
from .shared.credentials import ConnectionString, is_connection_string
from .shared.errors import RequestError, RequestTimeout
from .shared.job_states import ENDED, JobState
from .shared.mesh_file import decode_mesh
from .shared.messages import (
    Capabilities,
    GetCapabilities,
    JobChanged,
    JobDeleted,
    JobList,
    JobReply,
    JobSummary,
    PreviewFrame,
    ServerShutdown,
    SubmitJob,
)

if TYPE_CHECKING:
    from .shared.client import Client
    from .shared.transfer import Download

OFFLINE, ONLINE = (
    "closed",
    "online",
)  # values of shared.client.Link, whose module needs zmq, loaded at the first connect
PREVIEWED_JOBS = 8  # jobs whose pictures are kept


class Session(Commands):
    """Everything the panel shows. `tick` often; `revision` grows when something to draw changed."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self.address = folder, ""
        self.keys = key_store.Keyring(folder)
        self.revision = 0
        self.connection_state, self.reason = OFFLINE, "Not connected"
        self.offered: Capabilities | None = None
        self.jobs: dict[str, JobSummary] = {}  # newest first
        self.frames: dict[str, Frames] = {}
        self.downloads: dict[str, Download] = {}
        self.outbox: dict[
            str, SubmitJob
        ] = {}  # asked of this server and not yet answered, by ticket; kept on disk as well
        self.meshes = MeshOutbox(folder)  # of what of it is to be refined
        self.submitted: dict[str, str] = {}  # job by ticket, of this session
        self.notices: deque[Notice] = deque(maxlen=5)
        self.watched = ""
        self._clock = clock
        self._client: Client | None = None
        self._epoch = ""
        self._happened: list[Any] = []

    # --- the connection

    @property
    def is_online(self) -> bool:
        """Whether requests are answered now."""
        return self.connection_state == ONLINE

    @property
    def is_open(self) -> bool:
        """Whether a connection is wanted, be it there or not."""
        return self._client is not None

    @property
    def round_trip_s(self) -> float:
        """How long the server took to greet."""
        return self._client.round_trip_s if self._client else 0.0

    def show_offline(self, address: str) -> None:
        """Draw what `address` offered when it was last seen."""
        if address != self.address:
            self.address, self.offered = address, storage.recall_capabilities(self.folder, address)
            self.jobs, self.frames = {}, {}
            self.outbox = storage.recall_submits(self.folder, address)
            self.keys.show(address)
            self.revision += 1

    def pair(self, text: str) -> ConnectionString:
        """Take a server's connection string. Raises ValueError."""
        invited, is_new = self.keys.accept(text)
        if is_new:
            self.say(
                f"{invited.address} has another key now: {invited.fingerprint}; its server shows the same when all is well",
                False,
            )
        self.keys.show(self.address)
        self.revision += 1
        return invited

    def connect(self, address: str) -> None:
        """Begin to connect, by an address or a connection string.

        Raises ValueError for an address that is none or whose server is not known, ImportError where zmq cannot be loaded.
        """
        if is_connection_string(address):
            address = self.pair(address).address
        fault = labels.address_fault(address) or labels.key_fault(
            address, key_store.server_key(self.folder, address) is not None
        )
        if fault:
            raise ValueError(fault)
        # Loaded here: Windows keeps a loaded library locked, and an add-on that nobody uses must stay removable.
        import zmq

        from .shared.client import Client

        self.disconnect()
        self.show_offline(address)
        lock, name = self.keys.lock_for(address), f"blender add-on {__version__}"
        self._client = Client(address, storage.client_id(self.folder), name, self._clock, credentials=lock)
        try:
            self._client.connect()
        except zmq.ZMQError as error:
            self.disconnect()
            raise ValueError(f"The server address {address} cannot be used: {error}") from error
        self._client.subscribe(self.watched)
        self.tick()

    def disconnect(self) -> None:
        """Let go of the server; jobs go on there, and are back after the next connect."""
        for download in self.downloads.values():
            download.cancel()
        self.downloads = {}
        self.meshes.stop()
        if self._client is not None:
            self._client.close()
            self._client = None
        self._epoch = ""
        self._become(OFFLINE, "Not connected")

    def _become(self, link: str, reason: str) -> None:
        if (link, reason) != (self.connection_state, self.reason):
            self.connection_state, self.reason = link, reason
            self.revision += 1

    # --- asking

    def say(self, text: str, is_error: bool = True, fix: str = "") -> None:
        """Tell the person something, once."""
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
    ) -> str:
        """Ask for a prop, from the field of the job `parent_job` if there is one, or for a mesh file to be refined; returns the request's ticket.

        Raises ProtocolError for a field that breaks its rule.

        Sent again with the same ticket after every lost connection and every end of Blender until it is answered, which
        makes one job of it.
        """
        name = hashlib.sha256(mesh).hexdigest() if mesh else ""
        asked = SubmitJob(uuid.uuid4().hex, prompt, negative, model, preset, seed, settings, parent_job=parent_job, mesh=name)
        check_request(asked)
        self.outbox[asked.ticket] = asked
        if mesh:
            self.meshes.put(asked.ticket, mesh)
        self.revision += 1
        if self._client is not None:
            self._on_disk(lambda: storage.keep_submit(self.folder, self.address, asked, mesh), "Unanswered requests")
        self._send_submit(asked)
        return asked.ticket

    def withdraw(self, ticket: str) -> None:
        """Ask no longer for what was not answered yet; a job that the server made of it nevertheless is in its list."""
        if self.outbox.pop(ticket, None) is not None:
            self.meshes.drop(ticket)
            self._on_disk(lambda: storage.drop_submit(self.folder, ticket), "Answered requests")
            self.revision += 1

    def _on_disk(self, act: Callable[[], None], what: str) -> None:
        try:
            act()
        except OSError as error:
            self.say(
                f"{what} cannot be remembered in {self.folder}: {error.strerror or error}; everything works until Blender "
                "quits. Make room there, or make the folder writable",
                False,
            )

    def _send_submit(self, asked: SubmitJob) -> None:
        if asked.mesh and self._client is not None and not self.meshes.is_there(asked.ticket):
            return self._send_mesh(asked)

        def answered(reply: Any) -> None:
            if isinstance(reply, RequestTimeout):
                return None  # stays in the outbox for the next connection
            lacks_mesh = (
                isinstance(reply, RequestError) and reply.code == "not-ready" and asked.mesh and asked.ticket in self.outbox
            )
            if lacks_mesh and self.meshes.may_try_again(asked.ticket):
                return self._send_mesh(asked)
            self.withdraw(asked.ticket)
            if isinstance(reply, JobReply):
                self.submitted[asked.ticket] = reply.job.job
                self._take_job(reply.job)
                self._happened.append(JobStarted(reply.job))
            else:
                self._refused("The refinement was not started" if asked.mesh else "The prop was not started", reply)

        self._ask(asked, answered)

    def _send_mesh(self, asked: SubmitJob) -> None:
        def progressed() -> None:
            self.revision += 1

        def sent(result: Any) -> None:
            progressed()
            if isinstance(result, RequestError):
                self.withdraw(asked.ticket)
                self._refused("The mesh was not sent", result)
            else:
                self._send_submit(asked)

        try:
            self.meshes.send(self._client, asked, sent, progressed)
        except ValueError as error:
            self.withdraw(asked.ticket)
            self.say(f"The mesh for “{labels.short(asked.prompt)}” was not sent: {error}")

    def _ask(self, message: Any, on_reply: Callable[[Any], None]) -> None:
        if self._client is None:
            on_reply(RequestError("not-now", "not connected to a server"))
        else:
            self._client.request(message, on_reply)

    def _refused(self, what: str, reply: Any) -> None:
        why = str(reply) if isinstance(reply, RequestError) else "the server gave an answer that does not fit"
        self.say(f"{what}: {why}")

    def watch(self, job: str) -> None:
        """Have the previews of this job sent, and of no other; "" for none."""
        if job != self.watched:
            self.watched = job
            if self._client is not None:
                self._client.subscribe(job)

    def fetch(self, job: str, by_itself: bool = False) -> None:
        """Fetch a job's mesh; `tick` hands it out. Raises ValueError when there is none to fetch."""
        summary = self.jobs.get(job)
        if summary is None or not summary.mesh_bytes or self._client is None:
            raise ValueError("This job has no mesh to import yet")
        if job in self.downloads:
            return
        from .shared.transfer import Download

        def ended(result: Any) -> None:
            self.downloads.pop(job, None)
            self.revision += 1
            if isinstance(result, bytes):
                self._arrived(summary, result, by_itself)
            else:
                self._refused("The mesh was not fetched", result)

        download = Download(self._client, job, "mesh", summary.mesh_bytes, ended)
        self.downloads[job] = download
        download.start()
        self.revision += 1

    def _arrived(self, summary: JobSummary, data: bytes, by_itself: bool) -> None:
        try:
            self._happened.append(MeshArrived(self.jobs.get(summary.job, summary), decode_mesh(data), by_itself))
        except ValueError as error:
            self.say(f"The mesh of “{labels.short(summary.prompt)}” cannot be read: {error}")

    # --- taking in

    def tick(self, budget_s: float = 0.004) -> list[Any]:
        """Take in what the server sent: `NewFrame`, `JobStarted`, `JobEnded` and `MeshArrived` for who acts on them."""
        if self._client is not None:
            for event in self._client.tick(budget_s):
                self._take(event)
            if self._client.epoch != self._epoch:
                self._greeted()
        happened, self._happened = self._happened, []
        return happened

    def _take(self, event: Any) -> None:
        if isinstance(event, JobChanged):
            self._take_job(event.job)
        elif isinstance(event, JobDeleted):
            self.jobs.pop(event.job, None)
            self.frames.pop(event.job, None)
            self.revision += 1
        elif isinstance(event, JobList):
            gone = set(self.jobs) - {job.job for job in event.jobs}
            for job in gone:
                del self.jobs[job]
            for job in event.jobs:
                self._take_job(job)
            self.revision += 1
        elif isinstance(event, PreviewFrame):
            self._take_frame(event)
        elif isinstance(event, ServerShutdown):
            self.say(event.message, False)
        else:
            was_online = self.is_online
            self._become(event.state.value, event.reason)
            if self.is_online and not was_online:
                self._back_online()

    def _take_job(self, job: JobSummary) -> None:
        old = self.jobs.get(job.job)
        if old is not None and old.changed > job.changed:
            return
        self.jobs[job.job] = job
        if old is None:
            self.jobs = dict(sorted(self.jobs.items(), key=lambda item: (-item[1].submitted_at, item[0])))
        ended = JobState(job.state) in ENDED
        if ended and old is not None and JobState(old.state) not in ENDED:
            self._happened.append(JobEnded(job))
            if job.state == JobState.FAILED.value:
                self.say(f"“{labels.short(job.prompt)}” failed: {job.message or 'the log of the server says more'}")
        self.revision += 1

    def _take_frame(self, frame: PreviewFrame) -> None:
        ring = self.frames.pop(frame.job, None) or Frames()
        ring.add(frame)
        self.frames[frame.job] = ring
        while len(self.frames) > PREVIEWED_JOBS:
            del self.frames[next(iter(self.frames))]
        self._happened.append(NewFrame(frame.job))

    def _greeted(self) -> None:
        """A server that was started anew may offer other things."""
        self._epoch = self._client.epoch if self._client else ""

        def told(reply: Any) -> None:
            if not isinstance(reply, Capabilities):
                return self._refused("The server does not say what it offers", reply)
            self.offered = reply
            self.revision += 1
            self._on_disk(lambda: storage.remember_capabilities(self.folder, self.address, reply), "The server's offer")

        self._ask(GetCapabilities(), told)

    def _back_online(self) -> None:
        for asked in list(self.outbox.values()):
            self._send_submit(asked)
        for download in list(self.downloads.values()):
            download.resume()
