# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames of jobs to those who asked for them, as far as they have room: slow subscribers skip to the newest frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Frame(Protocol):
    """A message about the present state of a job."""

    @property
    def job(self) -> str: ...


AnyFrame = TypeVar("AnyFrame", bound=Frame)


@dataclass
class _Receiver:
    job: str  # whose frames are wanted
    in_flight: int = 0  # frames that were not acknowledged
    is_due: bool = False  # a newer frame waits for an acknowledgment


class FrameStream(Generic[AnyFrame]):
    """The newest frame of at most `kept` jobs, and its receivers, of whom each has `in_flight` unacknowledged ones.

    `deliver`: sends a frame over a route.
    """

    def __init__(self, kept: int, in_flight: int, deliver: Callable[[bytes, AnyFrame], None]) -> None:
        self._kept, self._in_flight, self._deliver = kept, in_flight, deliver
        self.newest: dict[str, AnyFrame] = {}  # by job, in the order of their arrival
        self._receivers: dict[bytes, _Receiver] = {}

    def subscribe(self, route: bytes, job: str) -> None:
        """Send the frames of this job from now on, at the next `flush` its newest one; "": none."""
        before = self._receivers.pop(route, None)
        if job or before is not None:  # what is in flight still counts when another job is chosen
            in_flight = 0 if before is None else before.in_flight
            self._receivers[route] = _Receiver(job, in_flight, job in self.newest)

    def unsubscribe(self, route: bytes) -> None:
        """The subscriber is gone."""
        self._receivers.pop(route, None)

    def acknowledge(self, route: bytes, count: int) -> None:
        """A subscriber has processed `count` frames."""
        receiver = self._receivers.get(route)
        if receiver is not None:
            receiver.in_flight = max(0, receiver.in_flight - count)
            if receiver.is_due:
                self._send(route, receiver)

    def publish(self, frame: AnyFrame) -> None:
        """Send a frame to those who want those of its job."""
        self.newest.pop(frame.job, None)
        self.newest[frame.job] = frame
        if len(self.newest) > self._kept:
            del self.newest[next(iter(self.newest))]
        for route, receiver in list(self._receivers.items()):
            if receiver.job == frame.job:
                self._send(route, receiver)

    def forget(self, job: str) -> None:
        """Drop the newest frame of a job."""
        self.newest.pop(job, None)

    def flush(self) -> None:
        """Send what is due."""
        for route, receiver in list(self._receivers.items()):
            if receiver.is_due:
                self._send(route, receiver)

    def wanted_jobs(self) -> set[str]:
        """Jobs whose frames somebody wants."""
        return {receiver.job for receiver in self._receivers.values() if receiver.job}

    def unacknowledged(self) -> int:
        """Number of frames that were sent and not acknowledged, over all subscribers."""
        return sum(receiver.in_flight for receiver in self._receivers.values())

    def _send(self, route: bytes, receiver: _Receiver) -> None:
        frame = self.newest.get(receiver.job)
        receiver.is_due = frame is not None and receiver.in_flight >= self._in_flight
        if frame is not None and not receiver.is_due:
            receiver.in_flight += 1
            self._deliver(route, frame)
