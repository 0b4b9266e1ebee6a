# SPDX-License-Identifier: GPL-3.0-or-later
"""A job that is cancelled at any moment ends within a step or within the cancel timeout, with a mesh of its steps.

`tests/soak/cancel_moments.py` repeats each moment twenty times; docs/operator/reliability.md has its figures.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamwright.backend.server.policy import Policy
from tests.soak.cancel_moments import MOMENTS, STUCK, soak

IMPATIENT = Policy(cancel_seconds=1.0, hang_minutes=30.0)  # for workers that never stop; others could need longer


@pytest.mark.slow
@pytest.mark.timeout(600)  # two workers are started anew, which takes a minute on a busy machine
def test_cancel_ends_a_job_at_every_moment(tmp_path: Path) -> None:
    outcome = soak(tmp_path, list(MOMENTS), 0)
    assert outcome.faults == []
    assert {moment: found.meshes for moment, found in outcome.moments.items()} == {
        "waiting": 0, "loading": 0, "step": 1, "mesh": 1, "twice": 1, "after": 1,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)  # as above
def test_stuck_worker_is_killed_after_the_cancel_timeout(tmp_path: Path) -> None:
    """The soak checks the time, the message, and that the next job succeeds."""
    outcome = soak(tmp_path, list(STUCK), 0, IMPATIENT)
    assert outcome.faults == []
    assert {moment: found.meshes for moment, found in outcome.moments.items()} == {"stuck loading": 0, "stuck mesh": 0}
