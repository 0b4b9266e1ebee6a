# SPDX-License-Identifier: GPL-3.0-or-later
"""Durations of jobs, estimated from finished ones, and the times at which queued jobs will be ready."""

from __future__ import annotations

import functools
import heapq
import json
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dreamwright.shared.messages import JobSummary

from ...config.parsing import apply_settings
from ...config.presets import preset_config
from ...config.recipes.recipe import Family
from ...config.usage import duration_settings
from ...errors import ConfigError, ModelError
from ...models.local import resolve_model
from ...training.recipe_choice import family_of_folder

SAMPLES = 12  # kept by key and device: enough for a spread, few enough to follow a new driver
MIN_STEPS = 5  # of a run that counts: the first step compiles and warms up


@dataclass(frozen=True)
class TimeRange:
    """A duration between two bounds in seconds; infinite when it is unknown."""

    low_s: float
    high_s: float

    def __add__(self, other: TimeRange) -> TimeRange:
        return TimeRange(self.low_s + other.low_s, self.high_s + other.high_s)

    @property
    def known(self) -> bool:
        return math.isfinite(self.high_s)


UNKNOWN = TimeRange(math.inf, math.inf)


@dataclass(frozen=True)
class DurationSample:
    """One finished run: seconds a step, and seconds beside the steps (loading, the mesh)."""

    step_s: float
    rest_s: float


def duration_key(job: JobSummary) -> str:
    """Text that is equal for jobs whose steps take equally long: model, kind of run, and `duration_settings`."""
    settings = tuple(sorted(f"{name}={value}" for name, value in job.settings.items()))
    return _duration_key(job.model, job.preset, bool(job.mesh), settings, _recipe_family(job))


def _recipe_family(job: JobSummary) -> Family | None:
    """The family of the job's model; None for one that is gone."""
    try:
        return family_of_folder(resolve_model(job.model))
    except ModelError:
        return None


@functools.lru_cache(maxsize=4096)
def _duration_key(model: str, preset: str, refines_mesh: bool, settings: tuple[str, ...], family: Family | None) -> str:
    try:
        config = apply_settings(preset_config(preset, refines_mesh, family or "starter"), settings)
        decisive = duration_settings(config, "mesh" if refines_mesh else None)
    except ConfigError:  # a job of a version with other settings, which fails when it starts
        return json.dumps([model, preset, refines_mesh, settings])
    return json.dumps([model, refines_mesh, decisive], sort_keys=True)


class DurationStats:
    """Samples by (duration key, device). `table` is plain data, so that the job store can save it."""

    def __init__(self, table: Mapping[tuple[str, str], Sequence[DurationSample]] | None = None) -> None:
        self.table: dict[tuple[str, str], list[DurationSample]] = {
            key: list(samples) for key, samples in (table or {}).items()
        }

    def add(self, key: str, device: str, steps: int, stepping_s: float, rest_s: float) -> list[DurationSample]:
        """Keep the times of a run of at least MIN_STEPS steps. Returns the samples of this key and device."""
        samples = self.table.setdefault((key, device), [])
        if steps >= MIN_STEPS and stepping_s > 0:
            samples.append(DurationSample(stepping_s / steps, max(0.0, rest_s)))
            del samples[:-SAMPLES]
        return samples

    def total(self, key: str, device: str, steps: int) -> TimeRange:
        """The time of `steps` steps with loading and mesh on this device: from the fastest sample to the slowest."""
        samples = self.table.get((key, device))
        if not samples:
            return UNKNOWN
        times = [sample.step_s * steps + sample.rest_s for sample in samples]
        return TimeRange(min(times), max(times))

    def rest(self, key: str, device: str) -> TimeRange:
        """The time beside the steps, from 0 to the slowest sample; 0 without samples."""
        rests = [sample.rest_s for sample in self.table.get((key, device), ())]
        return TimeRange(0.0, max(rests)) if rests else TimeRange(0.0, 0.0)


def ready_times(
    busy: Mapping[str, TimeRange], queue: Iterable[tuple[str, Mapping[str, TimeRange]]]
) -> dict[str, TimeRange]:
    """Seconds from now until each queued job is ready, when every device that is free takes the next job of the queue.

    `busy`: by device, the time until it is free. `queue`: in order, (job, its duration by device). The queue is
    simulated twice, with all durations short and with all long. A job of unknown duration occupies its device for ever,
    so jobs that would follow it there are unknown as well; jobs that fit on other devices are not.
    """
    orders = list(queue)
    simulated = [
        _simulate({device: end(time) for device, time in busy.items()}, orders, end)
        for end in (operator.attrgetter("low_s"), operator.attrgetter("high_s"))
    ]
    ranges = {}
    for job, _ in orders:
        # List scheduling has anomalies (Graham 1966): shorter jobs can end later, so the two are sorted.
        low, high = sorted(times[job] for times in simulated)
        ranges[job] = TimeRange(low, high) if math.isfinite(high) else UNKNOWN
    return ranges


def _simulate(
    free_at: Mapping[str, float],
    queue: Sequence[tuple[str, Mapping[str, TimeRange]]],
    end: Callable[[TimeRange], float],
) -> dict[str, float]:
    """Seconds until each job is ready, when the device that is free first takes the next job."""
    heap = sorted((time, device) for device, time in free_at.items())
    ready = {}
    for job, times in queue:
        if not heap:
            ready[job] = math.inf
            continue
        time, device = heapq.heappop(heap)
        ready[job] = time + end(times.get(device, UNKNOWN))
        heapq.heappush(heap, (ready[job], device))
    return ready
