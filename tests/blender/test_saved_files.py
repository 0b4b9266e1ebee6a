# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on leaves nothing in saved files or outside its folder, and explains disabled buttons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.testing.blender_reports import report_of
from tests.testing.blenders import Blender, run_script
from tests.testing.built_addon import Built

INSIDE = Path(__file__).parent / "scripts"


@pytest.mark.slow
def test_previews_are_not_saved_and_quitting_asks_nothing(
    blender_install: Blender, built: Built, serve: Callable[..., Any], tmp_path: Path
) -> None:
    """In a window where there is one, with the preview in an Image Editor, which makes Blender keep an image."""
    window = blender_install.kind == "program" and not blender_install.windowless
    server = serve("--steps", "1000", "--size", "64", "--wait", "0.05")
    variables = {"SERVER": server.address, "FILE": str(tmp_path / "scene.blend")}
    done = run_script(
        blender_install, INSIDE / "saved_files.py", built.universal, variables, timeout=280, window=window
    )
    assert "ASKED" not in done.stdout, "Blender wants to save a file in which nothing was changed"
    report = report_of(done)
    assert "Traceback" not in done.stdout + done.stderr
    for moment in ("while it streams", "after saving"):
        assert report[moment]["image"] is False and report[moment]["kept"] is False, moment
    assert report["while it streams"]["file"] == report["before"]
    assert "Dreamwright Preview" not in report["images in the file"]
    assert report["shown after saving"] == 1 and report["jobs after saving"] == 1
    assert report["state at the end"] == "running", "it was in mid-stream"
    if window:
        assert report["after saving"]["file"] is False and "Blender quit" in done.stdout


@pytest.mark.slow
def test_works_offline_without_3d_view_in_its_own_folder(
    blender_install: Blender, built: Built, serve: Callable[..., Any], tmp_path: Path
) -> None:
    server = serve("--pace", "4")
    variables = {"SERVER": server.address, "BLENDER_USER_RESOURCES": str(tmp_path)}
    done = run_script(blender_install, INSIDE / "isolation.py", built.universal, variables, timeout=280)
    report = report_of(done)
    assert "Traceback" not in done.stdout + done.stderr
    unknown = (
        "is another machine and its key is unknown; paste the connection string that dreamwright serve prints there"
    )
    if blender_install.legacy:
        assert unknown in report["elsewhere"], "there is no offline mode, and still no connection to other machines"
    else:
        assert report["online"] is False and unknown in report["elsewhere once allowed"]
        assert (
            "Enable online access in the System preferences to use a server on another machine" in report["elsewhere"]
        )
    assert report["undocumented"] == [] and report["operators"] >= 19
    assert report["greyed at first"].keys() >= {
        "generate",
        "cancel",
        "pause",
        "resume",
        "import_mesh",
        "delete_job",
        "disconnect",
        "step_preview",
        "use_text",
        "generate_again",
        "cancel_pending",
    }
    assert report["greyed later"].keys() >= {"cancel", "pause", "resume", "cancel_pending"}
    for moment in ("greyed at first", "greyed later"):
        for verb, reason in report[moment].items():
            assert "context is incorrect" not in reason and len(reason) > 20, (verb, reason)
    assert (
        report["preview without an editor"] == ["CANCELLED"] and "choose the image “Dreamwright Preview”" in done.stdout
    )
    assert report["preview beside a pinned picture"] == [["CANCELLED"], "Reference"], (
        "a pinned Image Editor is the artist's"
    )
    assert report["preview beside a picture"] == [["FINISHED"], "Dreamwright Preview"]
    assert report["notices"] == ["Imported “a red mushroom”"]
    assert report["folder"] == (
        "datafiles/dreamwright" if blender_install.legacy else "extensions/.user/user_default/dreamwright"
    )
    assert report["written"] and all(name.startswith(report["folder"] + "/") for name in report["written"])
