# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs outlive Blender and the file that is open in it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.testing.blender_reports import report_of
from tests.testing.blenders import blenders, run_script
from tests.testing.built_addon import Built

INSIDE = Path(__file__).parent / "scripts"


@pytest.mark.slow
@pytest.mark.parametrize(
    "server_lives", [True, False], ids=["the server continues", "the server dies and is restarted"]
)
def test_unanswered_submission_survives_a_restart(
    built: Built, serve: Callable[..., Any], tmp_path: Path, server_lives: bool
) -> None:
    blender = next(one for one in blenders() if one.name == "bpy-4.5.15")
    if blender.missing:
        pytest.skip(blender.missing)
    server = serve("--steps", "3000")
    kept = {
        "BLENDER_USER_RESOURCES": str(tmp_path),
        "SERVER": server.address,
        "SERVER_PROCESS": str(server.process.pid),
    }
    first = run_script(blender, INSIDE / "submit_without_reply.py", built.universal, kept)
    assert first.returncode == -signal.SIGKILL, first.stdout[-2000:] + first.stderr[-4000:]
    left = json.loads(
        next(line for line in first.stdout.splitlines() if line.startswith("REPORT ")).removeprefix("REPORT ")
    )
    assert len(left["waiting"]) == 1 and left["jobs"] == 0
    if server_lives:
        server.process.send_signal(signal.SIGCONT)  # what was on the way may arrive now, before it is sent again
    else:
        server.kill()
        serve("--steps", "3000", "--address", server.address)
    back = report_of(run_script(blender, INSIDE / "send_pending_again.py", None, kept))
    assert back == {"waiting": left["waiting"], "jobs": ["a red mushroom"], "left": []}


@pytest.mark.slow
def test_job_survives_restart_and_file_load(built: Built, serve: Callable[..., Any], tmp_path: Path) -> None:
    blender = next(one for one in blenders() if one.name == "bpy-4.5.15")
    if blender.missing:
        pytest.skip(blender.missing)
    server = serve("--steps", "400", "--size", "32")  # some 20 seconds: longer than it takes to start another Blender
    kept = {"BLENDER_USER_RESOURCES": str(tmp_path), "SERVER": server.address}
    first = run_script(blender, INSIDE / "quit_during_job.py", built.universal, kept)
    assert first.returncode == -signal.SIGKILL, first.stdout[-2000:] + first.stderr[-4000:]
    left = json.loads(
        next(line for line in first.stdout.splitlines() if line.startswith("REPORT ")).removeprefix("REPORT ")
    )
    assert left["state"] == "running"

    second = run_script(blender, INSIDE / "reopen_file.py", None, kept, timeout=200)
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


@pytest.mark.slow
@pytest.mark.parametrize("stop", [False, True], ids=["unless asked to", "when asked to"])
def test_local_server_stops_with_blender_when_chosen(built: Built, tmp_path: Path, stop: bool) -> None:
    blender = next(one for one in blenders() if one.name == "bpy-4.5.15")
    if blender.missing:
        pytest.skip(blender.missing)
    command = tmp_path / "dreamwright"
    command.write_text("#!/bin/sh\nexec sleep 120\n")
    command.chmod(0o755)
    variables = {"COMMAND": str(command), "STOP_WITH_BLENDER": str(int(stop))}
    done = run_script(blender, INSIDE / "start_server.py", built.universal, variables)
    process = int(report_of(done))
    try:
        deadline = time.monotonic() + 60  # reached only on failure
        while stop and _lives(process) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _lives(process) is not stop
    finally:
        if _lives(process):
            os.kill(process, signal.SIGKILL)


def _lives(process: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
