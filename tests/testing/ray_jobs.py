# SPDX-License-Identifier: GPL-3.0-or-later
"""Small job orders for the nodes of a cluster."""

from __future__ import annotations

from pathlib import Path

from dreamwright.backend.server.workers.worker_protocol import RunJob
from tests.testing.job_orders import attempt_order
from tests.testing.tiny_model import QUICK

STEPS, LONG = 40, 100_000
SETTINGS = {
    **dict(setting.split("=") for setting in QUICK),
    "run.threads": "1",
    "mesh.threshold": "1.0",
    "run.max_restarts": "0",
}
SETTINGS |= {"run.preview_interval": "10", "run.checkpoint_interval": "5"}


def job_order(model: Path, folder: Path, name: str, number: int, device: str, steps: int = STEPS) -> RunJob:
    """The order to run attempt `number` of the job `name` on a device."""
    settings = SETTINGS | {"run.steps": str(steps)}
    return attempt_order(model, folder, number, job=name, device=device, settings=settings)
