# SPDX-License-Identifier: GPL-3.0-or-later
"""Durations of jobs come from finished jobs of the same duration key and device; without any they are unknown."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.config.presets import PRESETS, REFINE_PRESET, preset_config
from dreamwright.backend.config.schema import Config
from dreamwright.backend.config.setting import setting_fields
from dreamwright.backend.config.usage import run_kind, setting_value
from dreamwright.backend.server.jobs.durations import (
    SAMPLES,
    UNKNOWN,
    DurationStats,
    TimeRange,
    duration_key,
    ready_times,
)
from dreamwright.shared.messages import JobSummary


def job(preset: str = "draft", model: str = "starter", mesh: str = "", **settings: Any) -> JobSummary:
    """A job with these settings, whose names have "__" for the dot."""
    named = {name.replace("__", "."): value for name, value in settings.items()}
    return JobSummary(
        "j",
        "queued",
        "a red mushroom",
        "",
        model,
        preset,
        0,
        named,
        0,
        100,
        0.0,
        -1.0,
        1,
        "",
        "",
        0.0,
        0,
        "",
        0,
        mesh=mesh,
    )


def test_key_never_run_on_a_device_is_unknown_there() -> None:
    durations = DurationStats()
    durations.add("draft", "cuda:0", 100, 50.0, 10.0)
    assert durations.total("draft", "cuda:0", 200) == TimeRange(110.0, 110.0)
    assert durations.total("draft", "cpu", 200) == durations.total("paper", "cuda:0", 200) == UNKNOWN


def test_short_runs_do_not_count_and_only_the_latest_samples_are_kept() -> None:
    durations = DurationStats()
    durations.add("draft", "cpu", 4, 100.0, 0.0)
    assert not durations.total("draft", "cpu", 10).known
    for second in range(1, 100):
        durations.add("draft", "cpu", 10, 10.0 * second, 5.0)
    assert len(durations.table[("draft", "cpu")]) == SAMPLES
    assert durations.total("draft", "cpu", 10) == TimeRange(10.0 * (100 - SAMPLES) + 5.0, 10.0 * 99 + 5.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"run__steps": 9},
        {"run__seed": 3},
        {"guidance__omega": 7.5},
        {"guidance__guidance_scale": 8.5},
        {"camera__distance_max": 3.0},
        {"optimizer__learning_rate": 0.01},
        {"mesh__height_m": 0.2, "mesh__triangles": 500},
        {"render__samples": 80},  # draft's own value
        {"render__samples": "80"},
    ],
)
def test_settings_without_effect_on_a_step_keep_the_key(settings: dict[str, Any]) -> None:
    assert duration_key(job(**settings)) == duration_key(job())


@pytest.mark.parametrize(
    "other",
    [
        job(model="another"),
        job("paper"),
        job(render__samples=81),
        job(run__views_per_step=6),
        job(guidance__opposite_weight=1.0),
        job(REFINE_PRESET, mesh="ab" * 32),
        job(nonsense__setting=1),  # saved by another version
    ],
)
def test_settings_that_change_a_step_change_the_key(other: JobSummary) -> None:
    assert duration_key(other) != duration_key(job())


@pytest.mark.parametrize("preset", [*PRESETS, REFINE_PRESET])
def test_the_key_follows_the_metadata_of_every_number(preset: str) -> None:
    """A number that is set to another value changes the key exactly when its metadata says so."""
    mesh = "ab" * 32 if preset == REFINE_PRESET else ""
    config = preset_config(preset, bool(mesh))
    kind, plain = run_kind(config, "mesh" if mesh else None), duration_key(job(preset, mesh=mesh))
    for name, found in setting_fields(Config).items():
        if found.bounds is None or found.kind == "integers":
            continue
        own = setting_value(config, name)
        value = next(bound for bound in (found.low, found.high) if bound != own)
        if any(pair.at_most == name for pair in setting_fields(Config).values()) or found.at_most:
            continue  # one of an ordered pair: the other would have to move as well
        if name == "camera.views_per_set":
            continue  # it divides the views of a step, so not every number is allowed
        if name == "optimizer.weight_decay" and config.optimizer.kind == "shampoo":
            continue  # it has none
        if name == "run.views_per_step":
            value = 2 * own
        changed = duration_key(job(preset, mesh=mesh, **{name.replace(".", "__"): value})) != plain
        assert changed == (found.duration and found.applies_to(*kind)), name


def test_queued_jobs_follow_each_other_on_the_device_that_is_free_first() -> None:
    took = {"a": TimeRange(10, 20), "b": TimeRange(10, 20)}
    busy = {"a": TimeRange(5, 5), "b": TimeRange(0, 0)}
    ready = ready_times(busy, [("first", took), ("second", took), ("third", took)])
    assert ready == {"first": TimeRange(10, 20), "second": TimeRange(15, 25), "third": TimeRange(20, 40)}


def test_jobs_behind_an_unknown_one_are_known_only_if_another_device_takes_them() -> None:
    known, unknown = {"a": TimeRange(5, 6), "b": TimeRange(5, 6)}, {"a": UNKNOWN, "b": UNKNOWN}
    two = ready_times({"a": TimeRange(0, 0), "b": TimeRange(1, 1)}, [("strange", unknown), ("usual", known)])
    assert two == {"strange": UNKNOWN, "usual": TimeRange(6, 7)}
    one = ready_times({"a": TimeRange(0, 0)}, [("strange", unknown), ("usual", known)])
    assert one == {"strange": UNKNOWN, "usual": UNKNOWN}
    assert ready_times({}, [("usual", known)]) == {"usual": UNKNOWN}


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 100)), max_size=8), st.integers(1, 3))
def test_ready_times_agree_with_a_second_simulation(jobs: list[tuple[float, float]], devices: int) -> None:
    """An event-driven simulation: time jumps from one end of a job to the next, and a free device takes the next job.

    The tolerance of 1e-6 s covers sums of at most 8 durations below 200 s in another order: 8 * 1600 * 2^-53 < 1e-11.
    """
    queue = [
        (f"j{i}", {f"d{d}": TimeRange(low, low + more) for d in range(devices)}) for i, (low, more) in enumerate(jobs)
    ]
    ready = ready_times({f"d{d}": TimeRange(0, 0) for d in range(devices)}, queue)
    for long in (False, True):
        line, running, now, ends = list(queue), [], 0.0, {}
        while line or running:
            while line and len(running) < devices:
                name, took = line.pop(0)
                running.append((now + (took["d0"].high_s if long else took["d0"].low_s), name))
            running.sort()
            now, name = running.pop(0)
            ends[name] = now
        for name, end in ends.items():
            assert ready[name].low_s - 1e-6 <= end <= ready[name].high_s + 1e-6
    assert all(time.known and time.low_s <= time.high_s and math.isfinite(time.low_s) for time in ready.values())
    if devices == 1:
        lows = list(itertools.accumulate(low for low, _ in jobs))
        assert all(abs(ready[f"j{i}"].low_s - low) < 1e-6 for i, low in enumerate(lows))
