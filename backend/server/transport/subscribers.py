# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens: changes go to every subscriber that may see the job, previews to those that have room for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dreamwright.shared import limits
from dreamwright.shared.messages import ServerShutdown, JobChanged, JobDeleted, JobSummary, PreviewFrame

PICTURES_KEPT = 64  # jobs whose latest picture is kept for who comes to watch: some 50 kB each, and ended jobs are many

Send = Callable[[bytes, Any], bool]  # (route, event) -> False when the subscriber is gone


@dataclass
class Subscriber:
    """One connection that asked for events."""

    owner: str
    previews_of: str
    heard: float  # when it last said anything
    sees_all: bool = False  # an admin: everybody's jobs
    count: int = 0  # events sent since its snapshot
    on_the_way: int = 0  # previews that it has not acknowledged
    owed: bool = False  # a newer preview waits for room


class Audience:
    """All subscribers. A slow one costs nothing: it keeps at most a few previews on the way and then gets the latest."""

    def __init__(self, send: Send, clock: Callable[[], float]) -> None:
        self._send, self._clock = send, clock
        self._subscribers: dict[bytes, Subscriber] = {}
        self._latest: dict[str, PreviewFrame] = {}  # by job, the one that was pictured longest ago first
        self._closing: ServerShutdown | None = None

    def __len__(self) -> int:
        return len(self._subscribers)

    def __contains__(self, route: bytes) -> bool:
        return route in self._subscribers

    def join(self, route: bytes, owner: str, previews_of: str, sees_all: bool = False) -> None:
        """Begin, or begin anew after a snapshot."""
        before = self._subscribers.get(route)
        on_the_way = 0 if before is None else before.on_the_way
        joined = Subscriber(owner, previews_of, self._clock(), sees_all, 0, on_the_way)
        self._subscribers[route] = joined
        if previews_of in self._latest:
            joined.owed = True
        if self._closing is not None:
            self._send(route, self._closing)

    def closing(self, words: str) -> None:
        """Tell everybody, and whoever comes from now on, that the server is about to end."""
        self._closing = ServerShutdown(words)
        for route in list(self._subscribers):
            if not self._send(route, self._closing):
                del self._subscribers[route]

    def settle(self) -> None:
        """Send what is owed, and drop whoever has been silent too long."""
        limit = self._clock() - limits.HEARTBEAT_S * limits.HEARTBEAT_LIVENESS * 3
        for route, subscriber in list(self._subscribers.items()):
            if subscriber.heard < limit:
                del self._subscribers[route]
            elif subscriber.owed:
                self._show(route, subscriber)

    def heard(self, route: bytes) -> None:
        """A subscriber gave a sign of life."""
        if route in self._subscribers:
            self._subscribers[route].heard = self._clock()

    def seen(self, route: bytes, count: int) -> None:
        """A subscriber took in previews."""
        subscriber = self._subscribers.get(route)
        if subscriber is not None:
            subscriber.on_the_way = max(0, subscriber.on_the_way - count)
            if subscriber.owed:
                self._show(route, subscriber)

    def changed(self, owner: str, job: JobSummary) -> None:
        """Tell of a job's new state."""
        self._tell(owner, lambda count: JobChanged(count, job))

    def forgotten(self, owner: str, job: str) -> None:
        """Tell that a job is gone."""
        self._latest.pop(job, None)
        self._tell(owner, lambda count: JobDeleted(count, job))

    def pictured(self, frame: PreviewFrame) -> None:
        """Show a new preview to whoever watches that job."""
        self._latest.pop(frame.job, None)
        self._latest[frame.job] = frame
        if len(self._latest) > PICTURES_KEPT:
            del self._latest[next(iter(self._latest))]
        for route, subscriber in list(self._subscribers.items()):
            if subscriber.previews_of == frame.job:
                self._show(route, subscriber)

    def _show(self, route: bytes, subscriber: Subscriber) -> None:
        frame = self._latest.get(subscriber.previews_of)
        subscriber.owed = frame is not None and subscriber.on_the_way >= limits.PREVIEWS_IN_FLIGHT
        if frame is not None and not subscriber.owed:
            subscriber.on_the_way += 1
            if not self._send(route, frame):
                del self._subscribers[route]

    def _tell(self, owner: str, make: Callable[[int], Any]) -> None:
        for route, subscriber in list(self._subscribers.items()):
            if subscriber.sees_all or subscriber.owner == owner:
                # Counted even if it cannot be sent: the gap tells the client to ask for everything anew.
                subscriber.count += 1
                if not self._send(route, make(subscriber.count)):
                    del self._subscribers[route]
