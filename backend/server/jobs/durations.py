# SPDX-License-Identifier: GPL-3.0-or-later
"""How long jobs take, from what was measured here, and so when a queued one will be ready; unknown stays unknown."""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dreamwright.shared.messages import JobSummary

SAMPLES = 12  # measurements kept a recipe and device: enough for a spread, few enough to follow a new driver
STEPS_AT_LEAST = 5  # of one run before its pace is believed: the first step compiles and warms up
# Settings that change nothing about how long a step takes; `run.steps` only multiplies it.
NEUTRAL = ("run.steps", "run.finetune_share", "run.seed", "run.max_restarts", "guidance.omega", "guidance.t_", "guidance.view_dependent", "guidance.overhead",
           "guidance.gradient_clip", "camera.", "light.", "optimizer.learning_rate", "mesh.height_m", "mesh.triangles")  # fmt: skip


@dataclass(frozen=True)
class Span:
    """A duration between two bounds, seconds; infinite where nothing is known."""

    low_s: float
    high_s: float

    def __add__(self, other: Span) -> Span:
        return Span(self.low_s + other.low_s, self.high_s + other.high_s)

    @property
    def known(self) -> bool:
        return math.isfinite(self.high_s)


UNKNOWN = Span(math.inf, math.inf)


@dataclass(frozen=True)
class Sample:
    """One finished run: seconds a step, and all the rest of it (loading, the mesh), seconds."""

    step_s: float
    rest_s: float


def recipe(job: JobSummary) -> str:
    """What decides the time of a step: model, preset, and the settings that matter for it."""
    told = {name: value for name, value in job.settings.items() if not name.startswith(NEUTRAL)}
    return json.dumps([job.model, job.preset, told], sort_keys=True)


class Paces:
    """Measured samples by (recipe, device). Plain data in `table`, so that the ledger can keep it."""

    def __init__(self, table: Mapping[tuple[str, str], Sequence[Sample]] | None = None) -> None:
        self.table: dict[tuple[str, str], list[Sample]] = {key: list(samples) for key, samples in (table or {}).items()}

    def learn(self, recipe: str, device: str, steps: int, stepping_s: float, rest_s: float) -> list[Sample]:
        """Keep one run's figures, if it was long enough; returns the samples that there are now."""
        samples = self.table.setdefault((recipe, device), [])
        if steps >= STEPS_AT_LEAST and stepping_s > 0:
            samples.append(Sample(stepping_s / steps, max(0.0, rest_s)))
            del samples[:-SAMPLES]
        return samples

    def whole(self, recipe: str, device: str, steps: int) -> Span:
        """The time of `steps` steps with loading and mesh on this device: between the fastest and the slowest measured."""
        samples = self.table.get((recipe, device))
        if not samples:
            return UNKNOWN
        times = [sample.step_s * steps + sample.rest_s for sample in samples]
        return Span(min(times), max(times))

    def rest(self, recipe: str, device: str) -> Span:
        """The time beside the steps; nothing where none was measured."""
        rests = [sample.rest_s for sample in self.table.get((recipe, device), ())]
        return Span(0.0, max(rests)) if rests else Span(0.0, 0.0)


def ready_times(busy: Mapping[str, Span], queue: Iterable[tuple[str, Mapping[str, Span]]]) -> dict[str, Span]:
    """When each queued job will be ready, seconds from now, when every device takes the next in line once it is free.

    `busy`: by device, until it is free. `queue`: in order, (job, time it takes by device). Played twice, once with all
    durations short and once with all long; a job of unknown duration holds its device for ever, so what would come after
    it there is unknown too, and what fits on other devices is not.
    """
    orders = list(queue)
    played = [_play({d: getattr(s, end) for d, s in busy.items()}, [(j, {d: getattr(s, end) for d, s in t.items()}) for j, t in orders])
              for end in ("low_s", "high_s")]  # fmt: skip
    spans = {}
    for job, _ in orders:
        # List scheduling has anomalies (Graham 1966): shorter jobs can end later, so the two are put in order.
        low, high = sorted(times[job] for times in played)
        spans[job] = Span(low, high) if math.isfinite(high) else UNKNOWN
    return spans


def _play(free_at: Mapping[str, float], queue: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, float]:
    heap = sorted((time, device) for device, time in free_at.items())
    ready = {}
    for job, times in queue:
        if not heap:
            ready[job] = math.inf
            continue
        time, device = heapq.heappop(heap)
        ready[job] = time + times.get(device, math.inf)
        heapq.heappush(heap, (ready[job], device))
    return ready
