# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright serve` with simulated workers whose jobs make a step and a preview every quarter of a second.

python -m tests.testing.stepping_worker_server serve --address … --state … --web 127.0.0.1:0
"""

from __future__ import annotations

import sys
import time
import zlib
from pathlib import Path

import numpy as np

from dreamwright.backend.cli import main as command
from dreamwright.backend.server import app
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.worker_protocol import JobFinished, PreviewReport, ProgressReport
from dreamwright.shared.mesh_file import encode_mesh
from dreamwright.shared.messages import PreviewFrame
from tests.testing.fake_props import ball
from tests.testing.fast_worker_server import report_of
from tests.testing.scripted_worker_server import ScriptedRunner

STEPS = 4000  # more than any test waits for
INTERVAL_S = 0.25
SIDE = 64  # pixels of a preview


def ball_preview(job: str, step: int) -> bytes:
    """A compressed image of a shaded ball, whose color is the job's and whose size grows with the steps."""
    x, y = np.meshgrid(*2 * [np.linspace(-1.0, 1.0, SIDE)])
    radius = 0.85 - 0.5 / (1 + step)
    height = np.sqrt(np.maximum(0.0, radius**2 - x**2 - y**2)) / radius
    light = np.clip(0.15 + 0.85 * (0.8 * height - (0.4 * x + 0.45 * y) / radius), 0.0, 1.0)
    color = np.array([int(job[place : place + 2], 16) for place in (0, 2, 4)]) * 0.6 + 90.0
    pixels = np.where(height[..., None] > 0, light[..., None] * color, 235.0)
    return zlib.compress(pixels.astype(np.uint8).tobytes(), 1)


class SteppingRunner(ScriptedRunner):
    """Simulated workers that stop when they are told to, with a mesh."""

    def __init__(self, context, devices, log_folder):
        super().__init__(context, devices, log_folder)
        self.at = 0.0
        self.steps: dict[str, int] = {}
        self.folders: dict[str, Path] = {}
        self.device_of: dict[str, str] = {}

    def assign(self, device, job):
        super().assign(device, job)
        self.steps[job.job], self.folders[job.job], self.device_of[job.job] = 0, Path(job.folder), device

    def stop(self, job, mode):
        super().stop(job, mode)
        if job not in self.steps:
            return
        (self.folders[job] / MESH_FILE).write_bytes(encode_mesh(ball(12, 1.0)))
        self._report(JobFinished, job, how={"cancel": "cancelled", "pause": "paused"}[mode], meshed=mode == "cancel")
        del self.steps[job]

    def reports(self):
        if time.monotonic() >= self.at:
            self.at = time.monotonic() + INTERVAL_S
            for job in self.steps:
                self.steps[job] += 1
                self._report(ProgressReport, job)
                frame = PreviewFrame(job, self.steps[job], SIDE, SIDE, ball_preview(job, self.steps[job]))
                self.queued.append(PreviewReport(frame, self.attempts[job]))
        reports, self.queued = self.queued, []
        for report in reports:
            if isinstance(report, JobFinished):
                self.free.append(self.device_of[report.job])
            yield report

    def _report(self, kind, job, how="", meshed=False):
        step = self.steps[job]
        fields = {"job": job, "attempt": self.attempts[job], "step": step, "steps": STEPS, "elapsed_s": step * 0.25}
        ends = {"eta_s": (STEPS - step) * 0.25, "how": how, "message": "", "meshed": meshed}
        self.queued.append(report_of(kind, **fields, **ends))


if __name__ == "__main__":
    app.LocalRunner = SteppingRunner
    sys.exit(command.main(sys.argv[1:]))
