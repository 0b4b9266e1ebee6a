# SPDX-License-Identifier: GPL-3.0-or-later
"""Events to subscribers: every change of a job they may see, and previews as far as they have room for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dreamwright.shared import limits
from dreamwright.shared.messages import JobChanged, JobDeleted, PreviewFrame, ServerShutdown

from ..jobs.job_record import JobRecord

PROGRESS_INTERVAL_S = 0.25  # between two published progress updates of a job
PREVIEWS_KEPT = 64  # jobs whose newest preview is kept for new subscribers: about 50 kB each
SILENT_S = 3 * limits.HEARTBEAT_S * limits.HEARTBEAT_LIVENESS  # without a request, after which a subscriber is dropped

Send = Callable[[bytes, Any], bool]  # (route, event) -> False when the subscriber is gone


@dataclass
class Subscriber:
    """One connection that receives events."""

    owner: str
    previews_of: str  # a job; "": none
    last_seen: float  # when its last request arrived
    sees_all: bool = False  # an admin: everybody's jobs
    count: int = 0  # events sent since its snapshot
    in_flight: int = 0  # previews that it has not acknowledged
    preview_due: bool = False  # a newer preview waits for an acknowledgment


class EventPublisher:
    """The subscribers of one server, and the `JobListener` that sends them each committed change.

    Slow subscribers skip to the newest preview: at most limits.PREVIEWS_IN_FLIGHT are unacknowledged.
    """

    def __init__(self, send: Send, clock: Callable[[], float]) -> None:
        self._send, self._clock = send, clock
        self._subscribers: dict[bytes, Subscriber] = {}
        self._previews: dict[str, PreviewFrame] = {}  # newest by job, in the order of their arrival
        self._published_at: dict[str, float] = {}  # by job
        self._pending: dict[str, JobRecord] = {}  # progress that is not published yet
        self._shutdown: ServerShutdown | None = None

    def __len__(self) -> int:
        return len(self._subscribers)

    def __contains__(self, route: object) -> bool:
        return route in self._subscribers

    # --- subscribers

    def subscribe(self, route: bytes, owner: str, previews_of: str, sees_all: bool = False) -> None:
        """Send events to a connection from now on; again after each snapshot that it requests."""
        before = self._subscribers.get(route)
        in_flight = 0 if before is None else before.in_flight
        subscriber = Subscriber(owner, previews_of, self._clock(), sees_all, 0, in_flight)
        subscriber.preview_due = previews_of in self._previews
        self._subscribers[route] = subscriber
        if self._shutdown is not None:
            self._deliver(route, self._shutdown)

    def touch(self, route: bytes) -> None:
        """A request of a connection arrived."""
        if route in self._subscribers:
            self._subscribers[route].last_seen = self._clock()

    def acknowledge_previews(self, route: bytes, count: int) -> None:
        """A subscriber has processed `count` previews."""
        subscriber = self._subscribers.get(route)
        if subscriber is not None:
            subscriber.in_flight = max(0, subscriber.in_flight - count)
            if subscriber.preview_due:
                self._send_preview(route, subscriber)

    # --- events

    def publish_job(self, record: JobRecord) -> None:
        """Send a job's summary at once."""
        self._published_at[record.job] = self._clock()
        self._pending.pop(record.job, None)
        self._publish(record.owner, lambda count: JobChanged(count, record.summary))

    def publish_progress(self, record: JobRecord) -> None:
        """Send a job's summary with the next `flush` that is PROGRESS_INTERVAL_S after its last one."""
        self._pending[record.job] = record

    def publish_deletion(self, record: JobRecord) -> None:
        """Send that a job was deleted."""
        for by_job in (self._published_at, self._pending, self._previews):
            by_job.pop(record.job, None)
        self._publish(record.owner, lambda count: JobDeleted(count, record.job))

    def publish_preview(self, frame: PreviewFrame) -> None:
        """Send a preview to the subscribers of that job's previews."""
        self._previews.pop(frame.job, None)
        self._previews[frame.job] = frame
        if len(self._previews) > PREVIEWS_KEPT:
            del self._previews[next(iter(self._previews))]
        for route, subscriber in list(self._subscribers.items()):
            if subscriber.previews_of == frame.job:
                self._send_preview(route, subscriber)

    def newest_preview(self, job: str) -> PreviewFrame | None:
        """The newest preview of a job since the server's start; None when there is none, or it was dropped."""
        return self._previews.get(job)

    def publish_shutdown(self, message: str) -> None:
        """Send all subscribers, and those that come later, that the server is about to end."""
        self._shutdown = ServerShutdown(message)
        for route in list(self._subscribers):
            self._deliver(route, self._shutdown)

    def flush(self) -> None:
        """Send the progress and previews that are due, and drop subscribers that have been silent for SILENT_S."""
        now = self._clock()
        for job, record in list(self._pending.items()):
            if now - self._published_at.get(job, float("-inf")) >= PROGRESS_INTERVAL_S:
                self.publish_job(record)
        for route, subscriber in list(self._subscribers.items()):
            if subscriber.last_seen < now - SILENT_S:
                del self._subscribers[route]
            elif subscriber.preview_due:
                self._send_preview(route, subscriber)

    def _send_preview(self, route: bytes, subscriber: Subscriber) -> None:
        frame = self._previews.get(subscriber.previews_of)
        subscriber.preview_due = frame is not None and subscriber.in_flight >= limits.PREVIEWS_IN_FLIGHT
        if frame is not None and not subscriber.preview_due:
            subscriber.in_flight += 1
            self._deliver(route, frame)

    def _publish(self, owner: str, make: Callable[[int], Any]) -> None:
        for route, subscriber in list(self._subscribers.items()):
            if subscriber.sees_all or subscriber.owner == owner:
                # Counted even if it cannot be sent: the gap makes the client request a new snapshot.
                subscriber.count += 1
                self._deliver(route, make(subscriber.count))

    def _deliver(self, route: bytes, event: Any) -> None:
        if not self._send(route, event):
            self._subscribers.pop(route, None)
