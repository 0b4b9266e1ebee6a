# SPDX-License-Identifier: GPL-3.0-or-later
"""Times of queued jobs are what was measured here, or unknown."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.server.jobs.durations import SAMPLES, UNKNOWN, Paces, Span, ready_times


def test_a_recipe_that_was_never_run_on_a_device_has_no_time_there() -> None:
    paces = Paces()
    paces.learn("draft", "cuda:0", 100, 50.0, 10.0)
    assert paces.whole("draft", "cuda:0", 200) == Span(110.0, 110.0)
    assert paces.whole("draft", "cpu", 200) == paces.whole("paper", "cuda:0", 200) == UNKNOWN


def test_a_run_too_short_to_tell_is_not_believed_and_old_ones_are_forgotten() -> None:
    paces = Paces()
    paces.learn("draft", "cpu", 4, 100.0, 0.0)
    assert not paces.whole("draft", "cpu", 10).known
    for second in range(1, 100):
        paces.learn("draft", "cpu", 10, 10.0 * second, 5.0)
    assert len(paces.table[("draft", "cpu")]) == SAMPLES
    assert paces.whole("draft", "cpu", 10) == Span(10.0 * (100 - SAMPLES) + 5.0, 10.0 * 99 + 5.0)


def test_a_job_is_ready_after_those_before_it_on_the_device_that_is_free_first() -> None:
    took = {"a": Span(10, 20), "b": Span(10, 20)}
    ready = ready_times({"a": Span(5, 5), "b": Span(0, 0)}, [("first", took), ("second", took), ("third", took)])
    assert ready == {"first": Span(10, 20), "second": Span(15, 25), "third": Span(20, 40)}


def test_what_stands_behind_an_unknown_job_is_known_only_where_another_device_can_take_it() -> None:
    known, unknown = {"a": Span(5, 6), "b": Span(5, 6)}, {"a": UNKNOWN, "b": UNKNOWN}
    two = ready_times({"a": Span(0, 0), "b": Span(1, 1)}, [("strange", unknown), ("usual", known)])
    assert two == {"strange": UNKNOWN, "usual": Span(6, 7)}
    one = ready_times({"a": Span(0, 0)}, [("strange", unknown), ("usual", known)])
    assert one == {"strange": UNKNOWN, "usual": UNKNOWN}
    assert ready_times({}, [("usual", known)]) == {"usual": UNKNOWN}


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 100)), max_size=8), st.integers(1, 3))
def test_the_times_are_those_of_a_server_that_takes_the_next_when_a_device_is_free(
    jobs: list[tuple[float, float]], devices: int
) -> None:
    """Against a second way of playing it: time goes from end to end of a job, whoever is free takes the head of the line."""
    queue = [(f"j{i}", {f"d{d}": Span(low, low + more) for d in range(devices)}) for i, (low, more) in enumerate(jobs)]
    spans = ready_times({f"d{d}": Span(0, 0) for d in range(devices)}, queue)
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
            assert spans[name].low_s - 1e-6 <= end <= spans[name].high_s + 1e-6
    assert all(span.known and span.low_s <= span.high_s and math.isfinite(span.low_s) for span in spans.values())
    if devices == 1:
        lows = list(itertools.accumulate(low for low, _ in jobs))
        assert all(abs(spans[f"j{i}"].low_s - low) < 1e-6 for i, low in enumerate(lows))
