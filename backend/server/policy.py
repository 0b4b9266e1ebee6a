# SPDX-License-Identifier: GPL-3.0-or-later
"""What this server allows and keeps: a number a line, told in the capabilities, set by `dreamwright serve`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dreamwright.shared import limits

from ..errors import ConfigError

GIGABYTE = 10**9


@dataclass(frozen=True)
class Policy:
    jobs_per_user: int = 60  # queued, running and paused jobs of one user: a day's work, and a turntable of fifty fits
    jobs_total: int = 500  # the same of all users; their places and times are reckoned anew at each change
    keep_days: float = (
        30.0  # days after its end that a job and its files stay; twice as long if nobody fetched its mesh
    )
    keep_gb: float = 50.0  # gigabytes of ended jobs' files; above it the oldest go, those that were fetched first
    pinned_per_user: int = 50  # jobs that a user may have kept until they say otherwise
    upload_mb_per_user: float = 128.0  # megabytes of meshes that a user sent to be refined: ten of the largest; then the one not used for longest goes
    upload_mb_total: float = 2048.0  # the same of all users
    upload_hours: float = 24.0  # hours since it was last used that such a mesh stays; a job keeps its own
    deaths: int = 3  # workers that may die of one job, none getting further than the one before, until it fails
    hang_minutes: float = 5.0  # minutes between two steps without a word, until a worker counts as hung; ten times its slowest step if longer
    cancel_seconds: float = 60.0  # seconds that a cancelled job may take to stop before its worker is ended


BOUNDS: Mapping[str, tuple[float, float]] = {
    "jobs_per_user": (1, 10_000),
    "jobs_total": (1, 10_000),
    "keep_days": (0.01, 36_500),
    "keep_gb": (0.001, 1e6),
    "pinned_per_user": (0, 10_000),
    "upload_mb_per_user": (1, 1e6),
    "upload_mb_total": (1, 1e7),
    "upload_hours": (0.01, 10_000),
    "deaths": (1, 100),
    "hang_minutes": (0.01, 10_000),
    "cancel_seconds": (0.1, 100_000),
}


def make_policy(**values: Any) -> Policy:
    """A policy; None takes the default. Raises ConfigError for a number outside its bounds."""
    policy = Policy(**{name: value for name, value in values.items() if value is not None})
    for field in dataclasses.fields(policy):
        value, (low, high) = getattr(policy, field.name), BOUNDS[field.name]
        if not math.isfinite(value) or not low <= value <= high:
            option = "--" + field.name.replace("_", "-")
            raise ConfigError(f"{field.name} is {value}; allowed is {low:g} to {high:g}; change {option}")
    return policy


def stated_bounds(policy: Policy) -> dict[str, float | int]:
    """Every limit by name, as the capabilities state them."""
    told = {
        name.lower(): getattr(limits, name)
        for name in (
            "PROMPT_CHARACTERS", "NAME_CHARACTERS", "VALUE_CHARACTERS", "SETTINGS", "JOBS_LISTED", "REQUEST_BYTES", "REPLY_BYTES",
            "CHUNK_BYTES", "CHUNKS_IN_FLIGHT", "PREVIEWS_IN_FLIGHT", "PREVIEW_PIXELS", "FILE_BYTES", "PRIORITY_LOWEST",
            "PRIORITY_HIGHEST", "SEED_LARGEST", "TICKET_CHARACTERS", "JOB_CHARACTERS", "MESH_VERTICES", "MESH_FACES",
            "UPLOAD_BYTES", "UPLOAD_PIECE_BYTES", "UPLOAD_PIECES_IN_FLIGHT",
        )
    }  # fmt: skip
    return {**told, **dataclasses.asdict(policy)}
