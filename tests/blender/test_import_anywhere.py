# SPDX-License-Identifier: GPL-3.0-or-later
"""A prop that arrives while the user is elsewhere: in another mode, scene or file, in other units, in two Blenders."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.testing.blender_reports import INSIDE, report_of, run_at_window
from tests.testing.blenders import Blender, blenders, run_script
from tests.testing.built_addon import Built

DONE = "Imported “a red mushroom”"


@pytest.mark.slow
def test_a_prop_arrives_anywhere(
    blender_install: Blender, built: Built, serve: Callable[..., Any], tmp_path: Path
) -> None:
    server = serve("--pace", "4")
    variables = {"SERVER": server.address, "BLENDER_USER_RESOURCES": str(tmp_path)}
    done = run_script(blender_install, INSIDE / "import_anywhere.py", built.universal, variables, timeout=280)
    report = report_of(done)
    assert "Traceback" not in done.stdout + done.stderr
    check_modes(report["modes"], report["button"])
    check_scenes(report["scenes"], blender_install)
    check_units(report["units"])
    check_files(report["files"])
    assert report["linked"] == [f"{DONE}; it is in the scene's own collection, as “Props” is linked from another file"]


def check_modes(waited: dict[str, Any], button: dict[str, Any]) -> None:
    """By itself a prop waits and disturbs nothing; the button leaves the mode, as its tooltip says."""
    said = ["“a red mushroom” will be imported when you return to Object Mode"]
    for mode, found in waited.items():
        assert found == {"mode": mode, "active": True, "selected": True, "said": said, "early": []}, mode
    assert set(button) == {"EDIT", "SCULPT"}
    assert all(found == {"mode": "OBJECT", "active": True} for found in button.values())


def check_scenes(found: dict[str, Any], blender: Blender) -> None:
    """A prop goes into the scene in which it was asked for. The selection of the shown scene stays."""
    elsewhere = {"shown": "Second", "kept": True, "location": [1, 2, 3]}
    note = "; it is in the scene “{}”, where it was asked for"
    gone = f"{DONE}; it is in the scene “Second”, as “First” has gone"
    hidden, deleted, renamed = found["hidden"], found["deleted"], found["renamed"]
    assert hidden == {"scenes": ["First"], "said": [DONE + note.format("First")]} | elsewhere
    assert (deleted["scenes"], deleted["said"]) == (["Second"], [gone])
    if hasattr_session_ids(blender):
        assert renamed == {"scenes": ["Renamed"], "said": [DONE + note.format("Renamed")]} | elsewhere
    else:
        assert (renamed["scenes"], renamed["said"]) == (["Second"], [gone])


def hasattr_session_ids(blender: Blender) -> bool:
    """Whether Python can tell a renamed datablock from a new one."""
    return blender.version >= (4, 2)


def check_units(found: dict[str, Any]) -> None:
    """Half a meter is half a meter as the scene measures, and the panel shows it so."""
    for name, units in (("METRIC 1.0", 0.5), ("METRIC 0.01", 50.0), ("IMPERIAL 1.0", 0.5), ("NONE 0.01", 0.5)):
        # float32 vertices and bounds
        assert found[name]["height"] == pytest.approx(units, rel=1e-5), name
        assert found[name]["shown"] == pytest.approx(units, rel=1e-6), "Blender shows it times the unit scale"
        assert found[name]["scale"] == [1, 1, 1]


def check_files(found: dict[str, Any]) -> None:
    """The list of jobs stays; a prop is not put into a file that did not ask for it, and the button still can."""
    refused = "“a red mushroom” was not imported, as another file is open now; press Import to have it in this one"
    for change, one in found.items():
        assert one["listed"] and one["rows"], change
        other = change == "another file"
        assert (one["imported"], one["said"]) == (int(not other), [refused if other else DONE]), change


@pytest.mark.slow
def test_two_blenders_on_one_server_import_nothing_twice(
    built: Built, serve: Callable[..., Any], tmp_path: Path
) -> None:
    """Both list the job. It is imported by itself where it was asked for, and elsewhere by the button."""
    blender = next(one for one in blenders() if one.name == "bpy-4.5.15")
    if blender.missing:
        pytest.skip(blender.missing)
    kept = {"SERVER": serve("--pace", "4").address, "BLENDER_USER_RESOURCES": str(tmp_path)}
    report_of(run_script(blender, INSIDE / "next_session.py", built.universal, kept))  # installs the add-on for both
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(run_script, blender, INSIDE / "two_blenders.py", None, kept | {"ROLE": role})
            for role in ("first", "second")
        ]
        first, second = (report_of(run.result()) for run in runs)
    assert first["client"] == second["client"], "the same user, with the same folder"
    assert second["by itself"] == []
    assert [found["jobs"] for found in (first, second)] == [1, 1]
    assert [found["imported"] for found in (first, second)] == [1, 1]


@pytest.mark.slow
def test_any_mesh_can_be_finished(blender_install: Blender, built: Built) -> None:
    """An overridden mesh, or a shared and keyed one, in any units; sizes are those of the scene."""
    command = str(Path(sys.executable).with_name("dreamwright"))
    done = run_script(
        blender_install, INSIDE / "finish_anywhere.py", built.universal, {"COMMAND": command}, timeout=280
    )
    report = report_of(done)
    assert "Traceback" not in done.stdout + done.stderr
    assert report.pop("hidden") == "refused"
    # Of 2 units, less what decimation to 200 triangles takes; a shape key doubles one; a meter is 100 units.
    heights = {"overridden": 2, "keyed": 4, "centimeters": 2, "one meter": 100}
    assert report.keys() == heights.keys()
    for name, found in report.items():
        assert found["said"].startswith("Finished “Ball”"), (name, found["said"])
        assert found["height"] == pytest.approx(heights[name], rel=0.05), name
        assert found["visible"] and found["kept"], name
    assert report["centimeters"]["unit scale"] == pytest.approx(0.01)


def at_window(part: str, built: Built, serve: Callable[..., Any]) -> dict[str, Any]:
    """The report of some parts of the script; each on its own Blender, as a drawn window is slow without a GPU."""
    variables = {"SERVER": serve("--pace", "40").address, "PART": part}
    run = run_at_window("import_anywhere_in_window.py", built.universal, "anywhere", variables)
    return run.report


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["EDIT", "SCULPT"])
def test_one_undo_takes_an_import_back_and_no_edit(built: Built, serve: Callable[..., Any], mode: str) -> None:
    found = at_window(mode, built, serve)[f"undo in {mode}"]
    vertices = found["edited"][1]
    assert found["edited"][0] == mode
    assert found["imported"] == ["OBJECT", vertices], "the edits are kept"
    assert found["undone"] == ["OBJECT", vertices], "one undo takes the prop back, and no edit"
    assert found["redone"] == ["OBJECT", vertices]
    assert found["undone again"] == [mode, vertices], "the next goes back to the mode"


@pytest.mark.slow
def test_an_import_that_waited_is_one_undo_step(built: Built, serve: Callable[..., Any]) -> None:
    found = at_window("automatic", built, serve)["automatic"]
    assert found == {"waited": ["EDIT", 0], "undone": ["OBJECT", True]}


@pytest.mark.slow
def test_import_goes_to_the_window_in_which_it_was_pressed(built: Built, serve: Callable[..., Any]) -> None:
    found = at_window("windows", built, serve)["two windows"]
    assert found == {"scenes": ["Second"], "location": [1, 2, 3], "active": True, "kept": True, "said": DONE}


@pytest.mark.slow
def test_an_import_waits_for_the_end_of_a_render(built: Built, serve: Callable[..., Any]) -> None:
    found = at_window("render", built, serve)["render"]
    assert found == {"said": "“a red mushroom” will be imported when the render has ended", "early": 0}
