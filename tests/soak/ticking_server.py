# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright serve` with simulated workers that report twenty steps a second by the clock, each with a preview.

python -m tests.soak.ticking_server serve --address … --state …

A job's step is computed from the time since its first start, also after a restart of the server, so a decreasing step
is an outdated message. The job ends after `run.steps` with a mesh of $MESH_BYTES random bytes (default 1000).
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dreamwright.backend.cli import main as command
from dreamwright.backend.server import app
from dreamwright.backend.server.requests import job_of
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.worker_protocol import JobFinished, PreviewReport, ProgressReport, RunJob
from dreamwright.shared.messages import PreviewFrame
from tests.testing.fake_props import preview_bytes
from tests.testing.scripted_worker_server import ScriptedRunner

TICK_S = 0.05
BLOCK = 1 << 20


class TickingRunner(ScriptedRunner):
    """Simulated workers whose step follows the clock."""

    def __init__(self, context: Any, devices: tuple[str, ...], log_folder: Path) -> None:
        super().__init__(context, devices, log_folder)
        self._running: dict[str, tuple[Path, float, int]] = {}  # by job: folder, time of its first start, total steps
        self._next = 0.0

    def assign(self, device: str, job: RunJob) -> None:
        super().assign(device, job)
        folder = Path(job.folder)
        start_file = folder / "started_at"
        if not start_file.exists():
            start_file.write_text(repr(time.time()))
        self._running[job.job] = folder, float(start_file.read_text()), job_of(job).config.run.steps

    def stop(self, job: str, mode: str) -> None:
        if job in self._running:
            del self._running[job]
            self.queued.append(JobFinished(job, "cancelled" if mode == "cancel" else "paused", "", False))

    def reports(self) -> Iterator[Any]:
        now = time.time()
        if now >= self._next:
            self._next = now + TICK_S
            for job, (folder, started_at, steps) in list(self._running.items()):
                elapsed_s = now - started_at
                step = min(steps, int(elapsed_s / TICK_S))
                self.queued.append(ProgressReport(job=job, step=step, steps=steps, elapsed_s=elapsed_s, eta_s=0.0))
                self.queued.append(PreviewReport(PreviewFrame(job, step, 64, 64, preview_bytes(step, 64))))
                if step == steps:
                    del self._running[job]
                    write_mesh(folder / MESH_FILE, int(os.environ.get("MESH_BYTES", "1000")))
                    self.queued.append(JobFinished(job, "succeeded", "", True))
        yield from super().reports()


def write_mesh(path: Path, size: int, seed: int = 0) -> None:
    """Write pseudo-random bytes, a block at a time."""
    rng = random.Random(seed)
    with path.open("wb") as file:
        for start in range(0, size, BLOCK):
            file.write(rng.randbytes(min(BLOCK, size - start)))


if __name__ == "__main__":
    app.LocalRunner = TickingRunner
    sys.exit(command.main(sys.argv[1:]))
