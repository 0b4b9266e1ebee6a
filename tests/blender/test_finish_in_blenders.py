# SPDX-License-Identifier: GPL-3.0-or-later
"""Finish Selected Mesh from the built zip, in each Blender."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.testing.blender_reports import INSIDE, report_of
from tests.testing.blenders import Blender, run_script
from tests.testing.built_addon import Built


@pytest.mark.slow
def test_finish_in_each_blender(blender_install: Blender, built: Built) -> None:
    """A ball of radius 1 at (1, 2, 3), red above and blue below: its base is at z = 2."""
    command = str(Path(sys.executable).with_name("dreamwright"))
    done = run_script(blender_install, INSIDE / "finish_mesh.py", built.universal, {"COMMAND": command}, timeout=200)
    report = report_of(done)
    assert "Traceback" not in done.stdout + done.stderr
    assert report["said"].startswith("Finished “Ball”: levels of "), report["said"]
    assert {"Ball", "Ball_LOD0", "Ball_LOD1", "UCX_Ball_LOD0_00"} <= set(report["objects"])
    assert report["location"] == pytest.approx([1, 2, 2], abs=1e-4)
    assert report["size"] == pytest.approx([2, 2, 2], abs=0.1) and report["triangles"] <= 200
    # linear 0.1 and 0.8 are 0.349 and 0.906 in display sRGB; a level of 8 bits is 0.004
    assert report["shades"][0] == pytest.approx([0.349, 0.349, 0.906], abs=0.005)
    assert report["shades"][-1] == pytest.approx([0.906, 0.349, 0.349], abs=0.005)
