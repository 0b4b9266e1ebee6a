# SPDX-License-Identifier: GPL-3.0-or-later
"""The built zip in each Blender: installs, enables, brings its libraries and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.blender_reports import report_of, run_at_window
from tests.testing.blenders import Blender, run_script
from tests.testing.built_addon import Built
from tools.addon_build.wheels import PACKAGES

INSIDE = Path(__file__).parent / "scripts"


@pytest.mark.slow
def test_zip_installs_and_uninstalls(blender_install: Blender, built: Built, tmp_path: Path) -> None:
    done = run_script(
        blender_install, INSIDE / "installation.py", built.universal, {"BLENDER_USER_RESOURCES": str(tmp_path)}
    )
    report = report_of(done)
    print(blender_install.name, report["addon"], "Python", report["python"], report["versions"])
    assert "Traceback" not in done.stdout + done.stderr
    assert report["enables_again"] and report["curve"] and not report["top_level"]
    brings = report["brings"]["classes"]
    assert any("_PT_" in name for name in brings) and any("_OT_" in name for name in brings)
    for time, leaves in report["leaves"].items():
        assert not any(leaves.values()), f"disabled {time}: {leaves}"
    if blender_install.legacy:
        assert report["addon"] == "dreamwright"  # zmq and msgpack are the system's
    else:
        assert report["versions"]["zmq"] == PACKAGES["pyzmq"] and report["versions"]["msgpack"] == PACKAGES["msgpack"]
        assert all(Path(report["files"][name]).is_relative_to(tmp_path) for name in ("zmq", "msgpack"))


@pytest.mark.slow
def test_addon_is_found_after_a_restart(blender_install: Blender, built: Built, tmp_path: Path) -> None:
    kept = {"BLENDER_USER_RESOURCES": str(tmp_path)}
    first = report_of(run_script(blender_install, INSIDE / "next_session.py", built.universal, kept))
    second = report_of(run_script(blender_install, INSIDE / "next_session.py", None, kept))
    assert first == second


@pytest.mark.slow
def test_repository_installs_the_addon(blender_install: Blender, built: Built, tmp_path: Path) -> None:
    if blender_install.legacy:
        pytest.skip(f"{blender_install.name} is older than extension repositories")
    if not built.validated:
        pytest.skip("no repository was built, as Blender's tool is not here; pip install bpy==4.5.15")
    report = report_of(
        run_script(
            blender_install,
            INSIDE / "next_session.py",
            built.out / "repository" / "index.json",
            {"BLENDER_USER_RESOURCES": str(tmp_path)},
        )
    )
    assert all(Path(path).is_relative_to(tmp_path) for path in report["files"].values())


@pytest.mark.slow
def test_panels_are_drawn_in_a_window(built: Built, tmp_path: Path) -> None:
    screenshot = tmp_path / "window.png"
    report, _, printed = run_at_window(
        "panels_in_window.py", built.universal, "installs", {"SCREENSHOT": str(screenshot)}
    )
    assert report["drawn"], f"none of {report['panels']} was drawn; see {screenshot}"
    buttons = [f"dreamwright.{verb}" for verb in ("cancel", "delete_job", "pause", "resume")]
    assert report["polled"] == buttons, "buttons in the panel depend on the selected job"
    assert "Blender quit" in printed  # closed as a person closes it, with the add-on on
    assert screenshot.stat().st_size > 10_000
