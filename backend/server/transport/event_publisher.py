# SPDX-License-Identifier: GPL-3.0-or-later
"""Events to subscribers: every change of a job they may see, and the frames of the jobs that they chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dreamwright.shared import limits
from dreamwright.shared.job_states import ENDED
from dreamwright.shared.live_mesh_messages import LiveMeshFrame
from dreamwright.shared.messages import JobChanged, JobDeleted, PreviewFrame, ServerShutdown
from dreamwright.shared.model_messages import CapabilitiesChanged, ModelDownload, ModelDownloadChanged

from ..jobs.job_record import JobRecord
from .frame_stream import FrameStream

PROGRESS_INTERVAL_S = 0.25  # between two published progress updates of a job
PREVIEWS_KEPT = 64  # jobs whose newest preview is kept for new subscribers: about 50 kB each
LIVE_MESHES_KEPT = 16  # the same of live meshes: about 60 kB each, limits.LIVE_MESH_BYTES at most
SILENT_S = 3 * limits.HEARTBEAT_S * limits.HEARTBEAT_LIVENESS  # without a request, after which a subscriber is dropped

Send = Callable[[bytes, Any], bool]  # (route, event) -> False when the subscriber is gone


@dataclass
class Subscriber:
    """One connection that receives events."""

    owner: str
    last_seen: float  # when its last request arrived
    sees_all: bool = False  # an admin: everybody's jobs
    sees_downloads: bool = False  # of models
    count: int = 0  # events sent since its snapshot


class EventPublisher:
    """The subscribers of one server, and the `JobListener` that sends them each committed change.

    previews, live_meshes: the streams of frames; only those who asked for live meshes receive any.
    """

    def __init__(self, send: Send, clock: Callable[[], float]) -> None:
        self._send, self._clock = send, clock
        self._subscribers: dict[bytes, Subscriber] = {}
        self.previews: FrameStream[PreviewFrame] = FrameStream(PREVIEWS_KEPT, limits.PREVIEWS_IN_FLIGHT, self._deliver)
        self.live_meshes: FrameStream[LiveMeshFrame] = FrameStream(
            LIVE_MESHES_KEPT, limits.LIVE_MESHES_IN_FLIGHT, self._deliver
        )
        self._published_at: dict[str, float] = {}  # by job
        self._pending: dict[str, JobRecord] = {}  # progress that is not published yet
        self._shutdown: ServerShutdown | None = None

    def __len__(self) -> int:
        return len(self._subscribers)

    def __contains__(self, route: object) -> bool:
        return route in self._subscribers

    # --- subscribers

    def subscribe(
        self,
        route: bytes,
        owner: str,
        previews_of: str,
        sees_all: bool = False,
        meshes_of: str = "",
        sees_downloads: bool = False,
    ) -> None:
        """Send events to a connection from now on; again after each snapshot that it requests.

        Previews and live meshes are those of the given jobs; "": none.
        """
        self._subscribers[route] = Subscriber(owner, self._clock(), sees_all, sees_downloads)
        self.previews.subscribe(route, previews_of)
        self.live_meshes.subscribe(route, meshes_of)
        if self._shutdown is not None:
            self._deliver(route, self._shutdown)

    def touch(self, route: bytes) -> None:
        """A request of a connection arrived."""
        if route in self._subscribers:
            self._subscribers[route].last_seen = self._clock()

    # --- events

    def publish_job(self, record: JobRecord) -> None:
        """Send a job's summary at once; when it has ended, nobody watches it grow any more."""
        if record.state in ENDED:
            self.live_meshes.forget(record.job)
        self._published_at[record.job] = self._clock()
        self._pending.pop(record.job, None)
        self._publish_to(record.owner, lambda count: JobChanged(count, record.summary))

    def publish_progress(self, record: JobRecord) -> None:
        """Send a job's summary with the next `flush` that is PROGRESS_INTERVAL_S after its last one."""
        self._pending[record.job] = record

    def publish_deletion(self, record: JobRecord) -> None:
        """Send that a job was deleted."""
        for by_job in (self._published_at, self._pending):
            by_job.pop(record.job, None)
        self.previews.forget(record.job)
        self.live_meshes.forget(record.job)
        self._publish_to(record.owner, lambda count: JobDeleted(count, record.job))

    def publish_download(self, download: ModelDownload) -> None:
        """Send the state of a model's download to the users who may start one."""
        self._publish(lambda subscriber: subscriber.sees_downloads, lambda count: ModelDownloadChanged(count, download))

    def publish_capabilities(self, revision: int) -> None:
        """Send everybody that the server offers something else."""
        self._publish(lambda subscriber: True, lambda count: CapabilitiesChanged(count, revision))

    def publish_shutdown(self, message: str) -> None:
        """Send all subscribers, and those that come later, that the server is about to end."""
        self._shutdown = ServerShutdown(message)
        for route in list(self._subscribers):
            self._deliver(route, self._shutdown)

    def flush(self) -> None:
        """Send the progress and frames that are due, and drop subscribers that have been silent for SILENT_S."""
        now = self._clock()
        for job, record in list(self._pending.items()):
            if now - self._published_at.get(job, float("-inf")) >= PROGRESS_INTERVAL_S:
                self.publish_job(record)
        for route, subscriber in list(self._subscribers.items()):
            if subscriber.last_seen < now - SILENT_S:
                self._drop(route)
        self.previews.flush()
        self.live_meshes.flush()

    def _publish_to(self, owner: str, make: Callable[[int], Any]) -> None:
        self._publish(lambda subscriber: subscriber.sees_all or subscriber.owner == owner, make)

    def _publish(self, sees: Callable[[Subscriber], bool], make: Callable[[int], Any]) -> None:
        for route, subscriber in list(self._subscribers.items()):
            if sees(subscriber):
                # Counted even if it cannot be sent: the gap makes the client request a new snapshot.
                subscriber.count += 1
                self._deliver(route, make(subscriber.count))

    def _deliver(self, route: bytes, event: Any) -> None:
        if not self._send(route, event):
            self._drop(route)

    def _drop(self, route: bytes) -> None:
        self._subscribers.pop(route, None)
        self.previews.unsubscribe(route)
        self.live_meshes.unsubscribe(route)
