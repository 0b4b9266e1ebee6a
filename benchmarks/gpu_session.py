# SPDX-License-Identifier: GPL-3.0-or-later
"""What needs a GPU, in order of weight and within a given time; `gpu_session.sh` prepares a bare machine and starts it.

1. tests     the tests marked `gpu`: nerfacc's kernels, the hash grid, the float16 VAE, compiling, offloading
2. steps     gpu_step.py: a step of every family over its bare network, and peak memory, with random weights
3. starter   jobs of the starter at `standard`, measured
4. training  the starter trained further from its state in the time left, if there are images to train on

Each part has a limit of its own and starts whatever became of the one before. --out gets the section for
docs/results/benchmarks.md (section.md, written after every part), figures.json, session.log, and the trained weights as
a pipeline folder in weights.tar.NN, pieces of at most 15 MiB: cat weights.tar.* | tar -x. The whole state of the
training (110 MB) stays in --work, from which the same command goes on. --tiny rehearses all of it on a CPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import json
import math
import os
import platform
import sys
import tarfile
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path

import numpy as np
import torch
from checkout import commit
from session_parts import (
    ROOT,
    Outcome,
    gpu_tests_command,
    read_steps,
    read_tests,
    read_training,
    run_part,
    starter_command,
    step_command,
    training_command,
)
from session_section import section, training_text

LIMITS = {"tests": 180.0, "steps": 240.0, "starter": 200.0}  # seconds; training has what is left
LEAST = 20.0  # seconds that a part is worth starting with
AROUND_TRAINING = 40.0  # seconds of its start and its export
PIECE = 15 << 20  # bytes: the tool of a lent machine returns files of at most 16 MiB
ARCHIVE = ROOT / ".whl" / "starter-data.tar.xz"


class Session:
    """Folders, clock and outcomes of one session; `write` puts what is known so far into the section."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.tiny, self.out, self.work = options, options.tiny, options.out, options.work
        for folder in (self.out, self.work):
            folder.mkdir(parents=True, exist_ok=True)
        self.log = self.out / "session.log"
        self.reports = {name: self.work / f"{name}.report" for name in ("tests", "steps")}
        for old in (self.log, *self.reports.values(), *self.out.glob("weights.tar.*")):
            old.unlink(missing_ok=True)
        self.outcomes: list[Outcome] = []
        self.end = time.monotonic() + 60 * options.minutes
        self.started = time.monotonic()
        self.training = ["Not run."]

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def part(self, name: str, command: list[str]) -> None:
        """Run one part within its limit and the time left."""
        own = math.inf if self.tiny else LIMITS.get(name, math.inf)  # other work can slow a rehearsal down
        limit = min(own, self.left)
        if limit < LEAST:
            self.record(Outcome(name, skipped=f"{max(0.0, limit):.0f} s are left; give more --minutes"))
            return
        self.record(run_part(name, command, limit, self.log))

    def record(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        said = f"not run: {outcome.skipped}" if outcome.skipped else outcome.fault or "done"
        print(f"{outcome.name}: {outcome.seconds:.0f} s, {said}", flush=True)
        self.write()

    def train(self) -> None:
        """Train in the time left, and put the weights into `out`; a line where there is no data."""
        data = training_data(self.options, self.work)
        seconds = 3.0 if self.tiny else self.left - AROUND_TRAINING
        if data is None:
            self.record(Outcome("training", skipped=f"no images: neither --data nor {ARCHIVE.relative_to(ROOT)}"))
            return
        if seconds < (0 if self.tiny else LEAST):
            self.record(Outcome("training", skipped=f"{max(0.0, self.left):.0f} s are left; give more --minutes"))
            return
        weights, state = self.work / "weights", self.work / "training"
        self.part("training", training_command(data, state, weights, seconds / 60, self.tiny))
        pieces = split_archive(weights, self.out) if not self.outcomes[-1].fault else 0
        saved = (
            f"Weights: weights.tar.00 and on, {pieces} pieces; state: {state}." if pieces else "No weights were saved."
        )
        self.training = training_text(read_training(self.log), saved)
        self.write()

    def write(self) -> None:
        """section.md and figures.json."""
        counts, steps = read_tests(self.reports["tests"]), read_steps(self.reports["steps"])
        table = self.work / "starter" / "evaluation.md"
        spent = time.monotonic() - self.started
        text = section(
            "Rehearsal of a GPU session" if self.tiny else "Figures of a GPU session",
            f"{date.today()}, commit {self.options.commit}, {spent:.0f} s in all. {machine(self.tiny)}",
            self.outcomes,
            counts,
            steps,
            table.read_text() if table.is_file() else "",
            self.training,
            self.tiny,
        )
        (self.out / "section.md").write_text(text)
        figures = {"tests": asdict(counts), "steps": steps, "parts": [asdict(outcome) for outcome in self.outcomes]}
        (self.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")


def machine(tiny: bool) -> str:
    """One sentence on device and versions."""
    if tiny or not torch.cuda.is_available():
        device = f"the CPU ({platform.machine()}), which says nothing about a GPU"
    else:
        gigabytes = torch.cuda.get_device_properties(0).total_memory / 1e9
        device = f"{torch.cuda.get_device_name()} ({gigabytes:.0f} GB), CUDA {torch.version.cuda}"
    versions = []
    for name in ("diffusers", "nerfacc", "tinycudann", "triton"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    python = f"Python {platform.python_version()}"
    return f"On {device}, {os.cpu_count()} cores; torch {torch.__version__}, {', '.join(versions)}, {python}."


def training_data(options: argparse.Namespace, work: Path) -> Path | None:
    """The folder of training images: --data, or what the archive beside the wheels holds; noise for a rehearsal."""
    folder = work / "data"
    if options.data is not None:
        return options.data
    if options.tiny:
        folder.mkdir(exist_ok=True)
        np.save(folder / "shard-000.npy", np.random.default_rng(0).integers(0, 256, (8, 64, 64, 6), dtype=np.uint8))
        cameras = [{"prop": i // 4, "azimuth": 90.0 * i % 360, "elevation": 20.0} for i in range(8)]
        (folder / "shard-000.json").write_text(json.dumps({"views": 4, "records": cameras}))
        return folder
    if not ARCHIVE.is_file():
        return None
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def split_archive(folder: Path, out: Path, piece: int = PIECE) -> int:
    """Pack the folder into out/weights.tar.00 and on, each at most `piece` bytes; returns how many."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(folder, "weights")
    content = packed.getvalue()
    starts = range(0, len(content), piece)
    for number, start in enumerate(starts):
        (out / f"weights.tar.{number:02d}").write_bytes(content[start : start + piece])
    return len(starts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out = os.environ.get("OUT") or ROOT / "runs" / "gpu-session"
    parser.add_argument("--minutes", type=float, default=11.5, help="of the whole session (default 11.5)")
    parser.add_argument("--out", type=Path, default=Path(out), help="folder of results (default $OUT, else runs/...)")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "gpu-session" / "work", help="folder of the rest")
    parser.add_argument("--data", type=Path, help="training images, of tools.starter_training.render_images")
    parser.add_argument("--commit", default=commit(), help="which code this is, where git is not there to tell")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU, to rehearse")
    options = parser.parse_args()
    options.out, options.work = options.out.resolve(), options.work.resolve()
    if not 0 < options.minutes <= 24 * 60:
        raise SystemExit(f"gpu_session.py: --minutes {options.minutes:g}; allowed is above 0, to 1440; change it")
    if options.data is not None and not any(options.data.glob("shard-*.npy")):
        raise SystemExit(f"gpu_session.py: no shard-*.npy in --data {options.data}; render them first, or leave it out")
    if not options.tiny and not torch.cuda.is_available():
        raise SystemExit("gpu_session.py: no CUDA device; run it on a machine with one, or rehearse it with --tiny")
    session = Session(options)
    session.part("tests", gpu_tests_command(session.reports["tests"]))
    session.part("steps", step_command(session.reports["steps"], session.tiny))
    session.part("starter", starter_command(session.work / "starter", session.tiny))
    session.train()
    print((session.out / "section.md").read_text())
    if any(outcome.fault for outcome in session.outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
