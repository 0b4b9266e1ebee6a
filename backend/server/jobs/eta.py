# SPDX-License-Identifier: GPL-3.0-or-later
"""Estimated times of arrival: when queued jobs will be ready, published when they change by more than a little."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from dreamwright.shared.job_states import JobState
from dreamwright.shared.messages import JobSummary

from .durations import TimeRange, duration_key, ready_times
from .job_store import SHORT_QUEUE, JobStore

ETA_INTERVAL_S = 2.0  # between two estimates of when the queued jobs will be ready
ETA_SHARE = 0.05  # of the server's time that estimates may take, with a long queue
MIN_CHANGE_S = 2.0  # smaller changes are not published
MIN_CHANGE_SHARE = 0.05  # nor those of a smaller share of the time itself


class EtaEstimates:
    """Estimates of a store's queue, every ETA_INTERVAL_S or as seldom as the queue's length asks for.

    `devices` returns those that take jobs now.
    """

    def __init__(self, store: JobStore, devices: Callable[[], Sequence[str]], clock: Callable[[], float]) -> None:
        self._store, self._devices, self._clock = store, devices, clock
        self._due_at = clock()

    def step(self) -> None:
        """Estimate when the queued jobs will be ready, if that is due."""
        if self._clock() >= self._due_at:
            self.update()

    def update(self) -> None:
        """Estimate when the queued jobs will be ready."""
        started = time.perf_counter()
        publish_eta(self._store, self._devices())
        took_s = time.perf_counter() - started
        self._due_at = self._clock() + max(ETA_INTERVAL_S, took_s / ETA_SHARE)

    def hasten(self) -> None:
        """Estimate at once where the queue is short, else in a step soon: it takes time for each queued job."""
        if self._store.queued <= SHORT_QUEUE:
            self.update()


def publish_eta(store: JobStore, devices: Sequence[str]) -> None:
    """Update `ready_low_s` and `ready_high_s` of every queued job, seconds from now; -1 where the time is unknown."""
    durations, records = store.durations, store.records.values()
    keys: dict[tuple[object, ...], str] = {}  # a key needs a look at the model's files, and many jobs have one

    def key_of(job: JobSummary) -> str:
        kind = (
            job.model,
            job.preset,
            bool(job.mesh),
            *sorted(f"{name}={value}" for name, value in job.settings.items()),
        )
        return keys.get(kind) or keys.setdefault(kind, duration_key(job))

    busy = {device: TimeRange(0.0, 0.0) for device in devices}
    for record in records:
        job = record.summary
        if record.state in (JobState.RUNNING, JobState.CANCELLING) and job.device in busy:
            key = key_of(job)
            if record.state is JobState.CANCELLING:
                busy[job.device] = durations.rest(key, job.device)
            elif job.eta_s >= 0:
                busy[job.device] = TimeRange(job.eta_s, job.eta_s) + durations.rest(key, job.device)
            else:
                busy[job.device] = durations.total(key, job.device, job.steps - job.step)
    queue = []
    totals: dict[tuple[str, int], dict[str, TimeRange]] = {}
    for record in store.waiting():
        job = record.summary
        key, left = key_of(job), job.steps - job.step
        if (key, left) not in totals:
            totals[key, left] = {device: durations.total(key, device, left) for device in busy}
        queue.append((job.job, totals[key, left]))
    ready = ready_times(busy, queue)
    for record in list(records):
        job, time = record.summary, ready.get(record.summary.job)
        low, high = (time.low_s, time.high_s) if time is not None and time.known else (-1.0, -1.0)
        threshold = max(MIN_CHANGE_S, MIN_CHANGE_SHARE * high)
        change = max(abs(high - job.ready_high_s), abs(low - job.ready_low_s))
        if (high < 0) != (job.ready_high_s < 0) or change > threshold:
            store.update_in_memory(job.job, ready_low_s=low, ready_high_s=high)
