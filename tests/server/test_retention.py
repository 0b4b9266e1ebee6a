# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept, for how long, and why a wrong clock deletes nothing."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.errors import ConfigError
from dreamwright.backend.server.jobs.retention import DAY_S, MonotonicAge, RetainedJob, expired
from dreamwright.backend.server.policy import GIGABYTE, Policy, make_policy, policy_settings, stated_bounds

WEEK = Policy(keep_days=7, keep_gb=1.0)
KEPT = st.lists(
    st.builds(
        RetainedJob,
        st.uuids().map(str),
        st.floats(0, 100 * DAY_S),
        st.integers(0, GIGABYTE),
        st.booleans(),
        st.booleans(),
    ),
    max_size=12,
)


def test_old_results_go_and_those_that_nobody_fetched_stay_twice_as_long() -> None:
    ages = (6.9, 7.1, 13.9, 14.1)
    fetched = [RetainedJob(f"f{age}", age * DAY_S, 1, True, False) for age in ages]
    unfetched = [RetainedJob(f"u{age}", age * DAY_S, 1, False, False) for age in ages]
    assert expired(fetched + unfetched, WEEK) == ["f13.9", "f14.1", "f7.1", "u14.1"]


def test_above_the_size_the_oldest_fetched_results_go_first() -> None:
    third = GIGABYTE * 4 // 10
    kept = [
        RetainedJob("old", 3.0, third, True, False),
        RetainedJob("new", 1.0, third, True, False),
        RetainedJob("older unfetched", 9.0, third, False, False),
    ]
    assert expired(kept, WEEK) == ["old"]
    assert expired([*kept, RetainedJob("more", 0.5, third, True, False)], WEEK) == ["new", "old"]


@given(KEPT)
def test_a_pinned_job_never_goes_and_the_rest_fits_the_size(kept: list[RetainedJob]) -> None:
    gone = set(expired(kept, WEEK))
    assert not gone & {job.job for job in kept if job.pinned}
    left = sum(job.size for job in kept if job.job not in gone and not job.pinned)
    assert left <= WEEK.keep_gb * GIGABYTE


@given(KEPT)
def test_nothing_goes_that_is_young_and_fits(kept: list[RetainedJob]) -> None:
    roomy = Policy(keep_days=101, keep_gb=1000.0)
    assert expired(kept, roomy) == []


class Clocks:
    """A wall clock that can be set and a monotonic one that cannot."""

    def __init__(self) -> None:
        self.wall_s, self.monotonic_s = 1.8e9, 50.0

    def pass_time(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds

    def age(self, before_s: float = 0.0, saved_at: float = 0.0) -> MonotonicAge:
        return MonotonicAge(before_s, saved_at, lambda: self.wall_s, lambda: self.monotonic_s)


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 40 * DAY_S, -40 * DAY_S])
def test_a_clock_that_jumps_while_the_server_runs_ages_nothing(jump_s: float) -> None:
    clocks = Clocks()
    age = clocks.age()
    clocks.pass_time(100.0)
    clocks.wall_s += jump_s
    assert age.now_s() == pytest.approx(100.0)
    again = clocks.age(*age.to_save())
    assert again.now_s() == pytest.approx(100.0), "nor does it once the server is restarted with the clock as it is"


def test_the_time_between_two_starts_counts_but_never_backwards_and_at_most_a_day() -> None:
    clocks = Clocks()
    saved = clocks.age().to_save()
    clocks.pass_time(3600.0)
    assert clocks.age(*saved).now_s() == pytest.approx(3600.0)
    clocks.wall_s -= 7200.0
    assert clocks.age(*saved).now_s() == 0.0
    clocks.wall_s += 400 * DAY_S
    assert clocks.age(*saved).now_s() == DAY_S


def test_every_number_of_the_policy_has_bounds_is_checked_and_is_stated() -> None:
    fields = {field.name for field in dataclasses.fields(Policy)}
    assert {limit.key for limit in policy_settings()} == fields <= set(stated_bounds(Policy()))
    for limit in policy_settings():
        name, (low, high) = limit.key, limit.bounds
        for value in (low - 1, high + 1, float("nan"), 1e308):
            with pytest.raises(ConfigError, match=f"{name} is .*allowed is .*change --{name.replace('_', '-')}"):
                make_policy(**{name: value})
    assert make_policy(keep_days=None, keep_gb=2.0) == Policy(keep_gb=2.0)
