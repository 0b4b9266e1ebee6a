# SPDX-License-Identifier: GPL-3.0-or-later
"""Small jobs as a server gives them to the nodes of a cluster."""

from __future__ import annotations

from pathlib import Path

from dreamwright.shared.messages import JobSummary
from tests.testing.tiny_model import QUICK

STEPS, LONG = 40, 100_000
SETTINGS = {
    **dict(setting.split("=") for setting in QUICK),
    "run.threads": "1",
    "mesh.threshold": "1.0",
    "run.max_restarts": "0",
}
SETTINGS |= {"run.preview_interval": "10", "run.checkpoint_interval": "5"}


def summary(model: Path, name: str, number: int, device: str, steps: int = STEPS) -> JobSummary:
    """Attempt `number` of the job `name`, running on a device."""
    settings = SETTINGS | {"run.steps": str(steps)}
    return JobSummary(
        name, "running", "a red mushroom", "", str(model), "draft", 0, settings, 0, steps, 0.0, -1.0, 0, "", "", 0.0, 0, "", 1,
        attempt=number, device=device,
    )  # fmt: skip
