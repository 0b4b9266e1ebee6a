# SPDX-License-Identifier: GPL-3.0-or-later
"""The time that a run still takes, by hand-computed numbers that float64 holds exactly."""

from __future__ import annotations

from dreamwright.backend.training.pace import Pace


def test_one_stage_goes_on_at_its_mean_rate() -> None:
    pace = Pace((10,), 2, 100.0)
    assert pace.remaining_s(2) == 0.0  # nothing measured yet
    pace.record(3, 101.0)
    pace.record(4, 104.0)
    assert pace.remaining_s(4) == 6 * 2.0


def test_stages_have_their_own_rates() -> None:
    """Until the second stage has been measured its steps count as the first's; its first step, with 20 s of
    preparation in it, never counts."""
    pace = Pace((2, 5), 0, 0.0)
    pace.record(1, 4.0)
    assert pace.remaining_s(1) == 1 * 4.0 + 3 * 4.0
    pace.record(2, 8.0)
    pace.record(3, 29.0)
    assert pace.remaining_s(3) == 2 * 4.0
    pace.record(4, 30.0)
    assert pace.remaining_s(4) == 1 * 1.0
    pace.record(5, 31.0)
    assert pace.remaining_s(5) == 0.0


def test_a_run_resumed_in_the_second_stage_measures_that_one() -> None:
    pace = Pace((2, 6), 3, 10.0)
    pace.record(4, 13.0)
    assert pace.remaining_s(4) == 2 * 3.0
    begins_there = Pace((2, 6), 2, 10.0)  # its first step makes the mesh, but nothing else is known
    begins_there.record(3, 13.0)
    assert begins_there.remaining_s(3) == 3 * 3.0
