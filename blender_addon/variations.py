# SPDX-License-Identifier: GPL-3.0-or-later
"""Variations: one prompt submitted with several seeds, as jobs of one group. Does not import bpy."""

from __future__ import annotations

import uuid
from typing import Any

from .session import Session
from .shared.limits import SEED_LARGEST, VARIATIONS_LARGEST
from .wording import say


def count_fault(count: int) -> str:
    """Why there cannot be so many variations, as a sentence; "" when there can."""
    if 1 <= count <= VARIATIONS_LARGEST:
        return ""
    return say("{count} variations were asked for; allowed are 1 to {largest}", count=count, largest=VARIATIONS_LARGEST)


def variation_seeds(start: int, count: int) -> list[int]:
    """`count` seeds from `start` on; after the largest comes 0."""
    return [(start + place) % (SEED_LARGEST + 1) for place in range(count)]


def submit_variations(
    session: Session,
    count: int,
    prompt: str,
    negative: str,
    model: str,
    preset: str,
    seed: int,
    settings: dict[str, Any],
    parent_job: str = "",
) -> list[str]:
    """Submit `count` jobs that differ in their seed, `seed` and those after it; their tickets.

    More than one are a group. Each is stored on disk until the server has answered it, so that closing Blender midway
    loses none. Raises ProtocolError for an invalid field, before anything is sent.
    """
    group = uuid.uuid4().hex if count > 1 else ""
    return [
        session.submit(prompt, negative, model, preset, seed, settings, parent_job, group=group, group_index=place)
        for place, seed in enumerate(variation_seeds(seed, count))
    ]
