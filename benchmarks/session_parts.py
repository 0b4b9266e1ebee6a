# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a GPU session: their commands, and their figures from the files that they write."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
GRACE = 5.0  # seconds between asking a part to stop and ending it
# Enough of a job to run every line of it on a CPU: the starter's own size, few steps.
TINY_JOB = (
    "run.steps=2",
    "render.resolution=16",
    "render.coarse_resolution=0",
    "mesh.resolution=16",
    "surface.steps=0",
)
PROMPTS = ("a red mushroom", "a yellow duck")
TRAINED = re.compile(r"step (\d+) images (\d+) loss ([\d.]+) ([\d.]+)/s")


@dataclass(frozen=True)
class Outcome:
    """How a part ended: seconds, and "" or what went wrong; `skipped` means that it was not started, and why."""

    name: str
    seconds: float = 0.0
    fault: str = ""
    skipped: str = ""


@dataclass(frozen=True)
class Counts:
    """Results of the marked tests, and the reasons of skips with how often each was given."""

    passed: int = 0
    failed: tuple[str, ...] = ()
    skipped: dict[str, int] = field(default_factory=dict)


def run_part(name: str, command: Sequence[str], limit: float, log: Path) -> Outcome:
    """Run the command for at most `limit` seconds, its output appended to `log`; its whole process group is ended then.

    A command that fails or is ended is an outcome and no error: the next part follows.
    """
    started = time.monotonic()
    with log.open("ab") as output:
        output.write(f"\n== {name}: {' '.join(command)}\n".encode())
        output.flush()
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, start_new_session=True)
        try:
            code = process.wait(limit)
            fault = "" if code == 0 else f"exit status {code}"
        except subprocess.TimeoutExpired:
            _end(process)
            fault = f"ended at its limit of {limit:.0f} s"
    return Outcome(name, time.monotonic() - started, fault)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the group to stop, and end what is left of it after a grace period."""
    os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # all of them stopped
    process.wait()


def gpu_tests_command(report: Path) -> list[str]:
    """The tests marked `gpu`. Warnings do not fail them: that machine's packages are not at the pinned versions."""
    options = ["-m", "gpu", "-rs", "-v", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
    return [sys.executable, "-m", "pytest", "tests/gpu", *options, f"--junitxml={report}"]


def step_command(report: Path, tiny: bool) -> list[str]:
    """A step of every family with random weights."""
    steps = ["--tiny", "--steps", "1"] if tiny else ["--steps", "20"]
    return [sys.executable, "benchmarks/gpu_step.py", "--json", str(report), *steps]


def starter_command(out: Path, tiny: bool) -> list[str]:
    """Jobs of the starter at `standard`, measured against the props that the prompts name."""
    settings = [argument for setting in TINY_JOB for argument in ("--set", setting)] if tiny else []
    return [
        sys.executable, "-m", "dreamwright.backend.cli.main", "evaluate", "starter", "--preset", "standard",
        "--prompts", *PROMPTS[: 1 if tiny else None], "--device", "cpu" if tiny else "cuda", "--out", str(out),
        *settings,
    ]  # fmt: skip


def training_command(data: Path, work: Path, weights: Path, minutes: float, tiny: bool) -> list[str]:
    """Training on sets of four views, from the state in `work` or else the weights that ship; exports the average."""
    size = ["--batch", "4", "--resolution", "32"] if tiny else ["--batch", "128", "--device", "cuda"]
    return [
        sys.executable, "-m", "tools.starter_training.train", "--data", str(data), "--work", str(work),
        "--minutes", f"{minutes:.2f}", "--start-from", "backend/starter/weights", "--rate", "3e-4",
        "--save-minutes", "1", "--views", "4", "--export", str(weights), *size,
    ]  # fmt: skip


def read_tests(report: Path) -> Counts:
    """Counts from pytest's JUnit report; all zero where a run was ended before it wrote one."""
    if not report.is_file():
        return Counts()
    passed, failed, skipped = 0, list[str](), dict[str, int]()
    for case in ElementTree.parse(report).iter("testcase"):
        results = {child.tag: child for child in case}
        if "failure" in results or "error" in results:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif "skipped" in results:
            reason = results["skipped"].get("message", "")
            skipped[reason] = skipped.get(reason, 0) + 1
        else:
            passed += 1
    return Counts(passed, tuple(failed), skipped)


def read_steps(report: Path) -> list[dict[str, Any]]:
    """Figures of the cases that `gpu_step.py` finished."""
    return json.loads(report.read_text()) if report.is_file() else []


def read_training(log: Path) -> tuple[int, int, float, float] | None:
    """Step, images, loss and images a second of the last report of a training in the log."""
    found = TRAINED.findall(log.read_text(errors="replace")) if log.is_file() else []
    if not found:
        return None
    step, images, loss, rate = found[-1]
    return int(step), int(images), float(loss), float(rate)
