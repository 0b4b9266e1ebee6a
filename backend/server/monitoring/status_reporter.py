# SPDX-License-Identifier: GPL-3.0-or-later
"""How the server is doing: as a message for `dreamwright top`, and as the figures that an exporter may read in its thread."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dreamwright.shared import limits
from dreamwright.shared.job_states import ENDED, JobState
from dreamwright.shared.status import (
    DEVICES_TOLD,
    JOBS_TOLD,
    USERS_TOLD,
    DeviceStatus,
    JobStatus,
    ServerStatus,
    UserStatus,
)

from ..jobs.job_store import JobRecord, JobStore
from .counters import Histogram, Counters

PRESENT_S = limits.HEARTBEAT_S * limits.HEARTBEAT_LIVENESS * 3  # a connection that said nothing for longer is gone
DISK_S = 10.0  # between two looks at the disk
ORDER = (JobState.RUNNING, JobState.CANCELLING, JobState.QUEUED, JobState.PAUSED)
AT_WORK = (JobState.RUNNING, JobState.CANCELLING)


class Paces(Protocol):
    """What runs now, by device."""

    def pace(self, job: str) -> tuple[float, float]:
        """(steps a second, seconds since the last report) of a running job; (0, -1) before the first."""


@dataclass(frozen=True)
class MetricsSnapshot:
    """Everything that is measured, at one moment; nothing in it changes any more, so another thread may read it."""

    uptime_s: float
    connections: int
    jobs: Mapping[str, int]  # by state, also those that have ended and are kept
    oldest_wait_s: float  # of the queued jobs, since they were submitted; 0: none
    busy: Mapping[str, bool]  # by device
    steps_per_s: Mapping[str, float]  # by device
    silent_s: Mapping[str, float]  # by device that is at work
    requests: Mapping[str, int]
    refusals: Mapping[str, int]
    ended: Mapping[str, int]
    worker_deaths: int
    preview_bytes: int
    lost_events: int
    answers: Histogram
    steps: Mapping[str, Histogram]
    mesh_bytes: int
    checkpoint_bytes: int
    disk_free_bytes: int


@dataclass(frozen=True)
class Disk:
    """What the state folder holds."""

    mesh_bytes: int = 0
    checkpoint_bytes: int = 0
    free_bytes: int = 0


class StatusReporter:
    """Looks at the ledger, the tally and the disk, and notes who was heard. Its own thread is the server's loop."""

    def __init__(
        self, ledger: JobStore, tally: Counters, devices: Callable[[], tuple[str, ...]], software: str, paces: Paces,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._ledger, self._tally, self._devices, self._software, self._paces = ledger, tally, devices, software, paces
        self._clock = clock
        self._began = clock()
        self._heard: dict[bytes, tuple[str, float]] = {}  # by connection: (user, when)
        self._seen: dict[str, float] = {}  # by user
        self._disk, self._looked_at = Disk(), float("-inf")

    def heard(self, route: bytes, owner: str) -> None:
        """A connection said something."""
        now = self._clock()
        self._heard[route], self._seen[owner] = (owner, now), now
        if len(self._heard) > 2 * limits.JOBS_LISTED:
            self._connections()

    def status(self, owner: str, is_admin: bool, is_alone: bool, is_closing: bool) -> ServerStatus:
        """What `owner` may know. `is_alone`: on an open door, where everybody is the same person."""
        entries = [entry for entry in self._ledger.entries.values() if entry.state not in ENDED]
        mine = [entry for entry in entries if is_admin or entry.owner == owner]
        mine.sort(key=lambda entry: (ORDER.index(entry.state), entry.summary.queue_position, entry.arrival))
        sees_all = is_admin or (is_alone and len(mine) == len(entries))
        connections = self._connections()
        disk = self._look()
        names = {entry.owner for entry in mine} | (set(self._seen) if is_admin else {owner})
        return ServerStatus(
            software=self._software,
            sees_all=sees_all,
            is_closing=is_closing,
            uptime_s=max(0.0, self._clock() - self._began),
            connections=sum(connections.values()) if sees_all else connections[owner],
            disk_used_bytes=disk.mesh_bytes + disk.checkpoint_bytes if sees_all else 0,
            disk_free_bytes=disk.free_bytes if sees_all else 0,
            devices=tuple(
                self._device_line(device, entries, {entry.summary.job for entry in mine})
                for device in self._devices()[:DEVICES_TOLD]
            ),
            jobs=tuple(_job_line(entry) for entry in mine[:JOBS_TOLD]),
            users=tuple(self._user_line(name, mine, connections[name]) for name in sorted(names)[:USERS_TOLD]),
            jobs_open=len(mine),
            users_known=len(names),
        )

    def figures(self) -> MetricsSnapshot:
        """All numbers, for an exporter."""
        entries, disk, tally = list(self._ledger.entries.values()), self._look(), self._tally
        waits = [self._ledger.waited_s(entry) for entry in entries if entry.state is JobState.QUEUED]
        at_work = {
            entry.summary.device: self._paces.pace(entry.summary.job) for entry in entries if entry.state in AT_WORK
        }
        states = Counter(entry.summary.state for entry in entries)
        return MetricsSnapshot(
            uptime_s=self._clock() - self._began,
            connections=sum(self._connections().values()),
            jobs={state.value: states[state.value] for state in JobState},
            oldest_wait_s=max(waits, default=0.0),
            busy={device: device in at_work for device in self._devices()},
            steps_per_s={device: at_work.get(device, (0.0, -1.0))[0] for device in self._devices()},
            silent_s={device: silent for device, (_, silent) in at_work.items() if silent >= 0},
            requests=dict(tally.requests),
            refusals=dict(tally.refusals),
            ended={state.value: tally.ended[state.value] for state in sorted(ENDED)},
            worker_deaths=tally.worker_deaths,
            preview_bytes=tally.preview_bytes,
            lost_events=tally.lost_events,
            answers=tally.answers.copy(),
            steps={device: spread.copy() for device, spread in tally.steps.items()},
            mesh_bytes=disk.mesh_bytes,
            checkpoint_bytes=disk.checkpoint_bytes,
            disk_free_bytes=disk.free_bytes,
        )

    def _connections(self) -> Counter[str]:
        """Connections that were heard of late, by user."""
        limit = self._clock() - PRESENT_S
        self._heard = {route: heard for route, heard in self._heard.items() if heard[1] >= limit}
        return Counter(owner for owner, _ in self._heard.values())

    def _device_line(self, device: str, entries: list[JobRecord], visible: set[str]) -> DeviceStatus:
        entry = next((entry for entry in entries if entry.state in AT_WORK and entry.summary.device == device), None)
        if entry is None:
            return DeviceStatus(device, "idle", "", "", 0.0, -1.0)
        if entry.summary.job not in visible:
            return DeviceStatus(device, "busy", "", "", 0.0, -1.0)
        rate, silent = self._paces.pace(entry.summary.job)
        return DeviceStatus(device, "busy", entry.summary.job, entry.owner, rate, silent)

    def _user_line(self, name: str, entries: list[JobRecord], connections: int) -> UserStatus:
        counts = Counter(entry.state for entry in entries if entry.owner == name)
        seen = self._clock() - self._seen[name] if name in self._seen else -1.0
        running = sum(counts[state] for state in AT_WORK)
        return UserStatus(name, running, counts[JobState.QUEUED], counts[JobState.PAUSED], connections, seen)

    def _look(self) -> Disk:
        """What is on the disk, looked at now and then; only jobs that have not ended have checkpoints, so few folders are read."""
        now = self._clock()
        if now - self._looked_at >= DISK_S:
            self._looked_at = now
            entries = self._ledger.entries.values()
            begun = [entry.summary.job for entry in entries if entry.state not in ENDED and entry.summary.attempt]
            try:
                free = shutil.disk_usage(self._ledger.folder).free
            except OSError:
                free = 0  # a folder that is gone or unmounted has no room
            written = sum(_bytes_in(self._ledger.job_folder(job) / "checkpoints") for job in begun)
            self._disk = Disk(sum(entry.summary.mesh_bytes for entry in entries), written, free)
        return self._disk


def _job_line(entry: JobRecord) -> JobStatus:
    job = entry.summary
    eta = job.ready_high_s if entry.state is JobState.QUEUED else job.eta_s
    return JobStatus(
        job.job,
        entry.owner,
        job.state,
        job.queue_position,
        job.step,
        job.steps,
        eta,
        job.device,
        job.priority,
        job.attempt,
    )


def _bytes_in(folder: Path) -> int:
    """Of the files that lie directly in a folder, which a worker may be changing; 0 where there is none."""
    total = 0
    try:
        with os.scandir(folder) as files:
            for file in files:
                try:
                    total += file.stat(follow_symlinks=False).st_size
                except OSError:
                    continue  # renamed while we looked
    except OSError:
        return 0
    return total
