# SPDX-License-Identifier: GPL-3.0-or-later
"""Refinement of an object from the built zip: in each Blender with a fake server, and once with the real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.blender.test_end_to_end import RealServer
from tests.testing.blender_reports import ARTEFACTS, report_of, run_at_window
from tests.testing.blenders import Blender, blenders, run_script
from tests.testing.built_addon import Built
from tests.testing.fake_props import RED

INSIDE = Path(__file__).parent / "scripts"


@pytest.mark.slow
def test_refine_as_object_and_shape_key_in_each_blender(
    blender_install: Blender, built: Built, serve: Callable[..., Any]
) -> None:
    """The fake server moves it up by the strength and colors it red."""
    server = serve("--pace", "200")
    done = run_script(
        blender_install, INSIDE / "refine_mesh.py", built.universal, {"SERVER": server.address}, timeout=200
    )
    report = report_of(done)
    assert "Traceback" not in done.stdout + done.stderr
    assert report["job"] == ["succeeded", "", 300, "refine", 64] and report["made"] == [True] * 3 and report["sound"]
    assert report["notices"] == ["Imported “a red mushroom” as a new object"] and report["still there"] == 0
    # float32 positions, and half a level of 8 bits (2e-3) in colors.
    for move in report["moves"]:
        assert move == pytest.approx([0, 0, 0.25], abs=1e-5)
    assert report["attribute"] == ["FLOAT_COLOR", "POINT"] and report["shades"] == [
        1,
        pytest.approx(list(RED), abs=2e-3),
    ]
    assert (
        report["key"] == ["Basis", "Dreamwright: a red mushroom"] == ["Basis", *report["beside"]]
        and report["as far"] < 1e-5
    )
    assert report["last notices"] == [
        (
            "“Ball” has the shape key “Dreamwright: a red mushroom”; its colors are in the color attribute "
            "“Dreamwright: a red mushroom”, which no material shows yet"
        )
    ]


@pytest.mark.slow
def test_refine_with_the_real_server(built: Built, tmp_path: Path) -> None:
    program = next(one for one in blenders() if one.name == "bpy-4.5.15")
    if program.missing:
        pytest.skip(program.missing)
    folder = ARTEFACTS / "refined"
    folder.mkdir(parents=True, exist_ok=True)
    server = RealServer(tmp_path / "state", tmp_path / "log")
    try:
        options = {
            "SERVER": server.address,
            "OPTIONS": json.dumps({"steps": 8, "strength": 0.6}),
            "PATIENCE": "300",
            "PICTURES": str(folder),
        }
        done = run_script(program, INSIDE / "refine_mesh.py", built.universal, options, timeout=700)
        report = report_of(done)
        assert "Traceback" not in done.stdout + done.stderr
    finally:
        server.end()
    assert report["job"][0] == "succeeded" and report["job"][2] == 8, report["job"]
    assert report["made"] == [True] * 3 and report["still there"] == 0 and report["sound"]
    farthest = sum(axis**2 for axis in report["moves"][1]) ** 0.5
    # The radius is Blender's, of a bounding box in float32; 1% covers a center that is not that of the vertices.
    assert 1e-4 < farthest < 1.01 * 0.6 * 0.5 * report["radius"], "strength x half the radius"
    assert report["shades"][0] > 20, "each vertex has a color of its own"
    # Equal bits from the server, turned into the object's frame and back in float32.
    assert report["as far"] < 1e-4, "the same seed again, as a shape key"
    assert {path.name for path in folder.glob("*.png")} == {"before.png", "after.png", "key.png"}


@pytest.mark.slow
def test_refine_dialog_import_and_undo_in_a_window(built: Built, serve: Callable[..., Any]) -> None:
    server = serve("--pace", "100")
    report = run_at_window("refine_mesh_in_window.py", built.universal, "refines", {"SERVER": server.address}).report
    assert report["before Enter"] == 0, "the dialog asks first"
    assert report["settings"] == {"refine.strength": 0.5, "run.steps": 250}, "the steps are what the server offers"
    assert report["states"] == [[True, False, True]] * 2, (
        "imported, undone in one step, redone: as an object, and as a shape key"
    )
    assert report["jobs"] == 2, "undo takes no job away"
