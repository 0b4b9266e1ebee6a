# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits of a server: queue, storage and retries. Stated in the capabilities, set by options of `dreamwright serve`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from dreamwright.shared import limits

from ..config.setting import Setting, section_settings, setting

GIGABYTE = 10**9
# Limits of the wire that the capabilities state beside the policy.
WIRE_LIMITS = (
    "PROMPT_CHARACTERS",
    "NAME_CHARACTERS",
    "VALUE_CHARACTERS",
    "SETTINGS",
    "JOBS_LISTED",
    "REQUEST_BYTES",
    "REPLY_BYTES",
    "CHUNK_BYTES",
    "CHUNKS_IN_FLIGHT",
    "PREVIEWS_IN_FLIGHT",
    "PREVIEW_PIXELS",
    "FILE_BYTES",
    "PRIORITY_LOWEST",
    "PRIORITY_HIGHEST",
    "SEED_LARGEST",
    "VARIATIONS_LARGEST",
    "TICKET_CHARACTERS",
    "JOB_CHARACTERS",
    "MESH_VERTICES",
    "MESH_FACES",
    "UPLOAD_BYTES",
    "UPLOAD_PIECE_BYTES",
    "UPLOAD_PIECES_IN_FLIGHT",
)


@dataclass(frozen=True)
class Policy:
    """The limits, with defaults for a small group of users."""

    jobs_per_user: int = setting(60, (1, 10_000), help="Largest number of queued, running and paused jobs of one user.")
    jobs_total: int = setting(500, (1, 10_000), help="Largest number of queued, running and paused jobs of all users.")
    keep_days: float = setting(
        30.0,
        (0.01, 36_500),
        unit="days",
        help="How long an ended job and its files are kept. Twice as long until its mesh was downloaded.",
    )
    keep_gb: float = setting(
        50.0,
        (0.001, 1e6),
        unit="GB",
        help="Largest size of the files of ended jobs. Above it the oldest are removed, downloaded ones first.",
    )
    keep_gb_per_user: float = setting(
        10.0,
        (0.001, 1e6),
        unit="GB",
        help="Largest size of the files of one user's ended jobs, with pinned ones, on a server with keys. Above it "
        "the user's oldest are removed, downloaded ones first.",
    )
    ended_per_user: int = setting(
        1000,
        (1, 100_000),
        help="Largest number of ended jobs of one user that are kept, on a server with keys. Above it that user's "
        "oldest are removed, downloaded ones first.",
    )
    pinned_per_user: int = setting(50, (0, 10_000), help="Largest number of jobs that one user has pinned.")
    upload_mb_per_user: float = setting(
        128.0,
        (1, 1e6),
        unit="MB",
        help="Largest size of the meshes that one user has uploaded. Above it the least recently used are removed.",
    )
    upload_mb_total: float = setting(
        2048.0, (1, 1e7), unit="MB", help="Largest size of the meshes that all users have uploaded."
    )
    uploads_per_user: int = setting(
        32,
        (1, 10_000),
        help="Largest number of meshes that one user has uploaded, whole or in part. Above it the least recently used "
        "are removed.",
    )
    upload_hours: float = setting(
        24.0,
        (0.01, 10_000),
        unit="hours",
        help="How long an uploaded mesh is kept after its last use. A job has a copy of its own.",
    )
    connections_per_user: int = setting(
        32, (1, 10_000), help="Largest number of connections with the keys of one user. More are not admitted."
    )
    connections_total: int = setting(
        2000, (1, 100_000), help="Largest number of connections of all users. More are not admitted."
    )
    max_worker_failures: int = setting(
        3, (1, 100), help="Failed attempts in a row without progress after which a job fails."
    )
    hang_minutes: float = setting(
        5.0,
        (0.01, 10_000),
        unit="minutes",
        help="Time without a step after which a worker counts as hung. Longer while it loads or makes the mesh, and "
        "never less than ten times its slowest step.",
    )
    cancel_seconds: float = setting(
        60.0,
        (0.1, 100_000),
        unit="seconds",
        help="Time that a cancelled job has to stop before its worker is killed. Longer while it makes the mesh.",
    )


def policy_settings() -> tuple[Setting, ...]:
    """The metadata of every limit, in order."""
    return section_settings(Policy)


def policy_option(name: str) -> str:
    """The option of `dreamwright serve` that sets a limit."""
    return "--" + name.replace("_", "-")


def make_policy(**values: Any) -> Policy:
    """A policy; None takes the default. Raises ConfigError for a number outside of its bounds."""
    policy = Policy(**{name: value for name, value in values.items() if value is not None})
    for found in policy_settings():
        found.check(getattr(policy, found.key), policy_option(found.key))
    return policy


def stated_bounds(policy: Policy) -> dict[str, float | int]:
    """Every limit by name, as the capabilities state them."""
    return {**{name.lower(): getattr(limits, name) for name in WIRE_LIMITS}, **dataclasses.asdict(policy)}
