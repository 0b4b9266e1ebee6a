# SPDX-License-Identifier: GPL-3.0-or-later
"""Finish Selected Mesh from the built zip, in each Blender."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from tests.testing.blender_reports import INSIDE, report_of, run_at_window
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


@pytest.mark.slow
def test_quads_and_fbx_in_each_blender(blender_install: Blender, built: Built) -> None:
    """The same triangles are shaded after joining, and the file has what the scene has."""
    command = str(Path(sys.executable).with_name("dreamwright"))
    done = run_script(blender_install, INSIDE / "finish_quads.py", built.universal, {"COMMAND": command}, timeout=200)
    report = report_of(done)
    assert "Traceback" not in done.stdout + done.stderr
    assert report["same triangles"] == [True, True]
    assert max(report["degrees"]) < math.degrees(1 / 127), "one level of an 8-bit normal map"
    assert report["told"] == report["shares"] and min(report["shares"]) > 0.5
    assert "% are quads" in report["said"] and report["export"] == ["FINISHED"] and report["scene stays"]
    assert report["file faces"] == report["faces"]
    group = dict.fromkeys(("Ball_LOD0", "Ball_LOD1"), "Ball")
    assert group.items() <= report["file"].items() and report["file"]["UCX_Ball_LOD0_00"] == ""
    assert report["images"] == [f"Ball_LOD{number}_{kind}" for number in range(2) for kind in ("albedo", "normal")]


@pytest.mark.slow
def test_file_dialog_of_the_export(built: Built) -> None:
    """A press of the button, a press of Return: the file has the asset's name, also in local view."""
    report = run_at_window("export_in_window.py", built.universal, "export", {}).report
    assert report["local view"] and report["name"] == "Mug.fbx" and report["in home"]
    assert report["holds the level"] and report["objects"] == ["Camera", "Cube", "Light"]
