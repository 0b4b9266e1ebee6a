# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs outlive Blender and the file that is open in it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.addon.blenders import blenders, run_script
from tests.addon.built import Built, built  # noqa: F401 (fixture)
from tests.addon.test_installs import report_of

INSIDE = Path(__file__).parent / "inside"


@pytest.mark.slow
@pytest.mark.parametrize("server_lives", [True, False], ids=["the server wakes up", "the server dies and is started anew"])
def test_a_request_that_the_server_never_answered_outlives_blender_and_becomes_one_job(
    built: Built, serve: Callable[..., Any], tmp_path: Path, server_lives: bool
) -> None:
    blender = next(one for one in blenders() if one.name == "bpy-4.5.15")
    if blender.missing:
        pytest.skip(blender.missing)
    server = serve("--steps", "3000")
    kept = {"BLENDER_USER_RESOURCES": str(tmp_path), "SERVER": server.address, "SERVER_PROCESS": str(server.process.pid)}
    first = run_script(blender, INSIDE / "asks_in_vain.py", built.universal, kept)
    assert first.returncode == -signal.SIGKILL, first.stdout[-2000:] + first.stderr[-4000:]
    left = json.loads(next(line for line in first.stdout.splitlines() if line.startswith("REPORT ")).removeprefix("REPORT "))
    assert len(left["waiting"]) == 1 and left["jobs"] == 0
    if server_lives:
        server.process.send_signal(signal.SIGCONT)  # what was on the way may arrive now, before it is sent again
    else:
        server.kill()
        serve("--steps", "3000", "--address", server.address)
    back = report_of(run_script(blender, INSIDE / "asks_again.py", None, kept))
    assert back == {"waiting": left["waiting"], "jobs": ["a red mushroom"], "left": []}


@pytest.mark.slow
def test_a_job_survives_the_end_of_blender_and_the_loading_of_a_file(built: Built, serve: Callable[..., Any], tmp_path: Path) -> None:
    blender = next(one for one in blenders() if one.name == "bpy-4.5.15")
    if blender.missing:
        pytest.skip(blender.missing)
    server = serve("--steps", "400", "--size", "32")  # some 20 seconds: longer than it takes to start another Blender
    kept = {"BLENDER_USER_RESOURCES": str(tmp_path), "SERVER": server.address}
    first = run_script(blender, INSIDE / "leaves_mid_job.py", built.universal, kept)
    assert first.returncode == -signal.SIGKILL, first.stdout[-2000:] + first.stderr[-4000:]
    left = json.loads(next(line for line in first.stdout.splitlines() if line.startswith("REPORT ")).removeprefix("REPORT "))
    assert left["state"] == "running"

    second = run_script(blender, INSIDE / "comes_back.py", None, kept, timeout=200)
    back = report_of(second)
    assert "Traceback" not in second.stdout + second.stderr
    assert back["client"] == left["client"], "the server knows it for the same artist"
    assert back["drawn offline"], "what the server offers is remembered"
    assert back["rows"] == [left["job"]]
    job, state, step = back["came back to"]
    assert job == left["job"] and state == "running" and step > left["step"], "it went on without Blender"
    both = [back["second"], left["job"]]  # newest first
    assert back["after a new file"] == [both, "a blue chair", []]
    assert back["after loading"] == [both, "a blue chair", "running", [left["job"]]]
    assert sorted(back["imported"]) == sorted(both)
    assert back["notices"] == ["Imported “a red mushroom”", "Imported “a red chair”"]
