# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports of scripts that run in Blender, and screenshots of window runs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.testing.blenders import ROOT, blenders, run_script

INSIDE = Path(__file__).resolve().parents[1] / "blender" / "scripts"
ARTEFACTS = Path(os.environ.get("DREAMWRIGHT_ARTEFACTS", ROOT / "runs" / "artefacts"))


class WindowRun(NamedTuple):
    """Result of one run with a window."""

    report: dict[str, Any]
    folder: Path  # folder of its screenshots
    printed: str


def report_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON line that a script inside printed."""
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    lines = [line for line in done.stdout.splitlines() if line.startswith("REPORT ")]
    assert len(lines) == 1, done.stdout[-4000:]
    return json.loads(lines[0].removeprefix("REPORT "))


def run_at_window(
    script: str, zip_path: Path, kept: str, variables: Mapping[str, str], timeout: float = 280
) -> WindowRun:
    """Run inside/`script` in the Blender that has a window.

    The folder is named after `kept` and the Blender, begins empty, and reaches the script as PICTURES. Skips where
    there is
    no window; a traceback anywhere in the output fails, also one that Blender only printed.
    """
    program = next(one for one in blenders() if one.kind == "program")
    if program.missing or program.windowless:
        pytest.skip(program.missing or program.windowless)
    folder = ARTEFACTS / f"{kept}-{program.name}"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    done = run_script(
        program, INSIDE / script, zip_path, {**variables, "PICTURES": str(folder)}, timeout=timeout, window=True
    )
    report = report_of(done)
    assert "Traceback" not in done.stdout + done.stderr
    return WindowRun(report, folder, done.stdout)
