# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright serve` with simulated workers that return a ball at once.

python -m tests.testing.fast_worker_server serve --address … --state …
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dreamwright.backend.cli import main as command
from dreamwright.backend.server import app
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.worker_protocol import JobFinished, PreviewReport, ProgressReport, RunJob
from dreamwright.shared.mesh_file import encode_mesh
from dreamwright.shared.messages import PreviewFrame
from tests.testing.fake_props import ball, preview_bytes
from tests.testing.scripted_worker_server import ScriptedRunner


def report_of(kind: type[Any], **fields: Any) -> Any:
    """A report of a kind from a superset of its fields."""
    return kind(**{name: fields[name] for name in kind.__dataclass_fields__ if name in fields})


class FastRunner(ScriptedRunner):
    """Simulated workers whose jobs succeed at once."""

    def assign(self, device: str, job: RunJob) -> None:
        super().assign(device, job)
        folder = Path(job.folder)
        mesh = ball(12, float(job.settings.get("mesh.height_m", 1.0)))
        mesh.facts["prompt"] = job.prompt
        (folder / MESH_FILE).write_bytes(encode_mesh(mesh))
        step = {
            "step": 10,
            "steps": 10,
            "elapsed_s": 1.0,
            "eta_s": 0.0,
        }
        end = {"how": "succeeded", "message": "", "meshed": True}
        common = {"job": job.job, "attempt": job.attempt, **step, **end}
        frame = PreviewFrame(job.job, 10, 16, 16, preview_bytes(10, 16))
        self.queued += [
            report_of(ProgressReport, **common),
            PreviewReport(frame, job.attempt),
            report_of(JobFinished, **common),
        ]


if __name__ == "__main__":
    app.LocalRunner = FastRunner
    sys.exit(command.main(sys.argv[1:]))
