# SPDX-License-Identifier: GPL-3.0-or-later
"""Custom properties that record how an object was made, and reading a request back from them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from .shared import __version__
from .shared.messages import JobSummary
from .wording import mark

PREFIX = "dreamwright_"  # of the custom properties
SOURCE_PREFIX = "source_"  # of facts about the object that a refined mesh was made from
REFINE_PRESET = "refine"  # preset of meshes that were refined, not generated
NOT_GENERATED = mark("The active object was not made by Dreamwright; select one that was")
MAX_NAME_BYTES = 60  # Blender allows 63


@dataclass(frozen=True)
class Request:
    """What an object was generated from."""

    job: str
    server: str
    prompt: str
    negative: str
    model: str
    preset: str
    seed: int
    settings: dict[str, Any]


def properties_of(job: JobSummary, facts: dict[str, Any], address: str) -> dict[str, Any]:
    """Custom properties of an object made by a job: its request, the mesh file's facts, server, version and time."""
    known: dict[str, Any] = {
        "prompt": job.prompt,
        "negative": job.negative,
        "model": job.model,
        "preset": job.preset,
        "seed": job.seed,
        "settings": json.dumps(job.settings, sort_keys=True),
        "job": job.job,
        "steps": job.step,
        "server": address,
        "version": __version__,
        "imported": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    if job.parent_job:
        known["parent_job"] = job.parent_job
    for name, value in facts.items():
        if not name.startswith(SOURCE_PREFIX):
            known.setdefault(name.replace(".", "_"), value)
    return {_limited(PREFIX + name): _storable(value) for name, value in known.items()}


def _limited(name: str) -> str:
    return name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def _storable(value: Any) -> Any:
    """Custom properties store integers of 32 bits; larger ones become text."""
    return str(value) if isinstance(value, int) and not -(2**31) <= value < 2**31 else value


def request_of(owner: Any) -> Request | None:
    """The request that generated an object; None for objects that were not generated, or were refined from a mesh."""
    if owner is None or not isinstance(owner.get(PREFIX + "prompt"), str):
        return None
    if owner.get(PREFIX + "preset") == REFINE_PRESET:
        return None
    try:
        settings = json.loads(owner.get(PREFIX + "settings", "{}"))
    except (TypeError, ValueError):
        settings = {}
    seed = owner.get(PREFIX + "seed", 0)

    def text(name: str) -> str:
        return str(owner.get(PREFIX + name, ""))

    return Request(
        text("job"),
        text("server"),
        text("prompt"),
        text("negative"),
        text("model"),
        text("preset"),
        int(seed) if isinstance(seed, (int, float)) else 0,
        settings if isinstance(settings, dict) else {},
    )
