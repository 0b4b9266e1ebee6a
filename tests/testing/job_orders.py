# SPDX-License-Identifier: GPL-3.0-or-later
"""Orders to workers for the attempts of small jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dreamwright.backend.server.workers.worker_protocol import RunJob


def attempt_order(model: Path, folder: Path, number: int, **changes: Any) -> RunJob:
    """The order to run attempt `number` of a draft of "a red mushroom" in `folder`; `changes` replace fields."""
    fields: dict[str, Any] = {
        "job": "job",
        "device": "cpu",
        "prompt": "a red mushroom",
        "negative": "",
        "preset": "draft",
        "seed": 0,
        "settings": {},
    }
    return RunJob(attempt=number, folder=str(folder), model=str(model), **(fields | changes))
