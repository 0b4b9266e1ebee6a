# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's status: as a message for `dreamwright top`, and as metrics for an exporter's thread."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dreamwright.shared import limits
from dreamwright.shared.job_states import ENDED, JobState
from dreamwright.shared.status import (
    MAX_DEVICES,
    MAX_JOBS,
    MAX_USERS,
    DeviceStatus,
    JobStatus,
    ServerStatus,
    UserStatus,
)

from ..jobs.job_record import JobRecord
from ..jobs.job_store import JobStore
from .counters import Counters, Histogram

# A connection without a request for longer counts as gone.
PRESENT_S = 3 * limits.HEARTBEAT_S * limits.HEARTBEAT_LIVENESS
PRUNE_INTERVAL_S = 5.0  # between two searches for connections that are gone
DISK_INTERVAL_S = 10.0  # between two measurements of the disk
STATE_ORDER = (JobState.RUNNING, JobState.CANCELLING, JobState.QUEUED, JobState.PAUSED)
RUNNING_STATES = (JobState.RUNNING, JobState.CANCELLING)

# Of a job: (steps per second, seconds since its last step report); (0, -1) before the first.
StepRate = Callable[[str], tuple[float, float]]


@dataclass(frozen=True)
class MetricsSnapshot:
    """All metrics at one moment. Nothing in it changes any more, so another thread may read it."""

    uptime_s: float
    connections: int
    jobs: Mapping[str, int]  # by state, ended ones included
    oldest_wait_s: float  # of the queued jobs, since they were submitted; 0: none
    busy: Mapping[str, bool]  # by device
    drained: Mapping[str, bool]  # by device
    is_closing: bool  # the server takes no more jobs and is about to end
    steps_per_s: Mapping[str, float]  # by device
    silent_s: Mapping[str, float]  # since the last step report, by busy device
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
class DiskUsage:
    """What the state folder holds, and the free space beside it."""

    mesh_bytes: int = 0
    checkpoint_bytes: int = 0
    free_bytes: int = 0


class StatusReporter:
    """Reads the job store, the counters and the disk, and keeps when each connection was last seen."""

    def __init__(
        self,
        store: JobStore,
        counters: Counters,
        devices: Callable[[], tuple[str, ...]],
        software: str,
        step_rate: StepRate,
        clock: Callable[[], float],
        is_drained: Callable[[str], bool] = lambda device: False,
    ) -> None:
        self._is_drained = is_drained
        self._store, self._counters, self._devices, self._software = store, counters, devices, software
        self._step_rate, self._clock = step_rate, clock
        self._started = self._prune_at = clock()
        self._last_seen: dict[bytes, tuple[str, float]] = {}  # (user, time) by connection
        self._user_seen: dict[str, float] = {}  # time by user
        self._disk, self._disk_at = DiskUsage(), float("-inf")

    def touch(self, route: bytes, owner: str) -> None:
        """A request of a connection arrived."""
        now = self._clock()
        self._last_seen[route], self._user_seen[owner] = (owner, now), now
        if now >= self._prune_at:
            self._prune_at = now + PRUNE_INTERVAL_S
            self._connections()

    def status(self, owner: str, is_admin: bool, is_open: bool, is_closing: bool) -> ServerStatus:
        """The status that `owner` may see. `is_open`: a server without keys, where everybody is the same user."""
        records = [record for record in self._store.records.values() if record.state not in ENDED]
        visible = [record for record in records if is_admin or record.owner == owner]
        visible.sort(key=lambda r: (STATE_ORDER.index(r.state), r.summary.queue_position, r.arrival))
        sees_all = is_admin or (is_open and len(visible) == len(records))
        connections = self._connections()
        disk = self._disk_usage()
        visible_jobs = {record.job for record in visible}
        names = {record.owner for record in visible} | (set(self._user_seen) if is_admin else {owner})
        return ServerStatus(
            software=self._software,
            sees_all=sees_all,
            is_closing=is_closing,
            uptime_s=max(0.0, self._clock() - self._started),
            connections=sum(connections.values()) if sees_all else connections[owner],
            disk_used_bytes=disk.mesh_bytes + disk.checkpoint_bytes if sees_all else 0,
            disk_free_bytes=disk.free_bytes if sees_all else 0,
            devices=tuple(
                self._device_status(device, records, visible_jobs) for device in self._devices()[:MAX_DEVICES]
            ),
            jobs=tuple(_job_status(record) for record in visible[:MAX_JOBS]),
            users=tuple(self._user_status(name, visible, connections[name]) for name in sorted(names)[:MAX_USERS]),
            jobs_open=len(visible),
            users_known=len(names),
        )

    def metrics(self, is_closing: bool) -> MetricsSnapshot:
        """All metrics, for an exporter."""
        records, disk, counters = list(self._store.records.values()), self._disk_usage(), self._counters
        waits = [self._store.waited_s(record) for record in records if record.state is JobState.QUEUED]
        rates = {r.summary.device: self._step_rate(r.job) for r in records if r.state in RUNNING_STATES}
        states = Counter(record.summary.state for record in records)
        return MetricsSnapshot(
            uptime_s=self._clock() - self._started,
            connections=sum(self._connections().values()),
            jobs={state.value: states[state.value] for state in JobState},
            oldest_wait_s=max(waits, default=0.0),
            busy={device: device in rates for device in self._devices()},
            drained={device: self._is_drained(device) for device in self._devices()},
            is_closing=is_closing,
            steps_per_s={device: rates.get(device, (0.0, -1.0))[0] for device in self._devices()},
            silent_s={device: silent for device, (_, silent) in rates.items() if silent >= 0},
            requests=dict(counters.requests),
            refusals=dict(counters.refusals),
            ended={state.value: counters.ended[state.value] for state in sorted(ENDED)},
            worker_deaths=counters.worker_deaths,
            preview_bytes=counters.preview_bytes,
            lost_events=counters.lost_events,
            answers=counters.answers.copy(),
            steps={device: histogram.copy() for device, histogram in counters.steps.items()},
            mesh_bytes=disk.mesh_bytes,
            checkpoint_bytes=disk.checkpoint_bytes,
            disk_free_bytes=disk.free_bytes,
        )

    def _connections(self) -> Counter[str]:
        """Connections seen within PRESENT_S, by user."""
        limit = self._clock() - PRESENT_S
        self._last_seen = {route: seen for route, seen in self._last_seen.items() if seen[1] >= limit}
        return Counter(owner for owner, _ in self._last_seen.values())

    def _device_status(self, device: str, records: list[JobRecord], visible: set[str]) -> DeviceStatus:
        running = (r for r in records if r.state in RUNNING_STATES and r.summary.device == device)
        record = next(running, None)
        draining = self._is_drained(device)
        if record is None:
            return DeviceStatus(device, "idle", "", "", 0.0, -1.0, draining)
        if record.job not in visible:
            return DeviceStatus(device, "busy", "", "", 0.0, -1.0, draining)
        rate, silent_s = self._step_rate(record.job)
        return DeviceStatus(device, "busy", record.job, record.owner, rate, silent_s, draining)

    def _user_status(self, name: str, records: list[JobRecord], connections: int) -> UserStatus:
        counts = Counter(record.state for record in records if record.owner == name)
        seen_s = self._clock() - self._user_seen[name] if name in self._user_seen else -1.0
        running = sum(counts[state] for state in RUNNING_STATES)
        return UserStatus(name, running, counts[JobState.QUEUED], counts[JobState.PAUSED], connections, seen_s)

    def _disk_usage(self) -> DiskUsage:
        """The disk's usage, measured every DISK_INTERVAL_S; only jobs that have not ended have checkpoints to count."""
        now = self._clock()
        if now - self._disk_at >= DISK_INTERVAL_S:
            self._disk_at = now
            records = self._store.records.values()
            started = [record.job for record in records if record.state not in ENDED and record.summary.attempt]
            try:
                free = shutil.disk_usage(self._store.folder).free
            except OSError:
                free = 0  # the folder is gone or unmounted
            checkpoints = sum(_folder_bytes(self._store.job_folder(job) / "checkpoints") for job in started)
            self._disk = DiskUsage(sum(record.summary.mesh_bytes for record in records), checkpoints, free)
        return self._disk


def _job_status(record: JobRecord) -> JobStatus:
    job = record.summary
    return JobStatus(
        job=job.job,
        user=record.owner,
        state=job.state,
        place=job.queue_position,
        step=job.step,
        steps=job.steps,
        eta_s=job.ready_high_s if record.state is JobState.QUEUED else job.eta_s,
        device=job.device,
        priority=job.priority,
        attempt=job.attempt,
    )


def _folder_bytes(folder: Path) -> int:
    """Bytes of the files directly in a folder that a worker may be changing; 0 if there is none."""
    total = 0
    try:
        with os.scandir(folder) as files:
            for file in files:
                try:
                    total += file.stat(follow_symlinks=False).st_size
                except OSError:
                    continue  # renamed meanwhile
    except OSError:
        return 0
    return total
