# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorded sequence of a prop that is watched works as its script says, with few steps of the real model."""

from __future__ import annotations

import itertools

import pytest

from tests.blender import record_sequence
from tests.blender.record_first_prop import missing
from tests.blender.test_generate_in_window import reddish, seen
from tests.testing.blender_reports import ARTEFACTS
from tests.testing.built_addon import Built

FEW = {"run.steps": 30, "render.samples": 16, "mesh.resolution": 32}  # controls of the panel


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_dreamt_prop_is_watched_from_an_early_step_to_its_import(built: Built) -> None:
    if missing():
        pytest.skip(missing())
    out = ARTEFACTS / "watch"
    report = record_sequence.record("watch", built.universal, out, ("a red mushroom",), FEW, 500)
    early, middle, late = report["steps"]
    assert 0 < early <= middle <= late and report["triangles"] > 100
    shown = sorted(out.glob("*.png"))
    assert [path.stem for path in shown] == ["1-early", "2-middle", "3-late", "4-imported"]
    for one, other in itertools.pairwise(shown):
        assert (seen(one) != seen(other)).any()
    assert reddish(seen(shown[2])).sum() > 2_000, "the prop is in the view before it is imported"
