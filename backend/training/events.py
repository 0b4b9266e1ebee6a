# SPDX-License-Identifier: GPL-3.0-or-later
"""The events of a run, in the order in which they happen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..geometry.live_mesh import LiveMesh
from ..scenes.interfaces import RunState, Verdict


@dataclass(frozen=True)
class StepCompleted:
    """A step was taken: steps done of `steps`, seconds since (re)start and to go, named figures."""

    step: int
    steps: int
    elapsed_s: float
    eta_s: float
    scalars: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Preparing:
    """After `step` steps, what the next one makes first, which may take long: "" once it is made."""

    step: int
    what: str


@dataclass(frozen=True)
class Preview:
    """An image (h, w, 3) uint8 of the scene after `step` steps."""

    step: int
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class LiveMeshMade:
    """A coarse mesh of the scene after `step` steps, for those who watch it grow."""

    step: int
    mesh: LiveMesh


@dataclass(frozen=True)
class Checkpoint:
    """A state worth keeping; the caller writes it."""

    state: RunState


@dataclass(frozen=True)
class Health:
    """The result of a check of the scene, with figures."""

    step: int
    verdict: Verdict
    figures: Mapping[str, float]
    message: str


@dataclass(frozen=True)
class Restarted:
    """The run began anew from another seed, and why."""

    step: int
    old_seed: int
    new_seed: int
    reason: str


@dataclass(frozen=True)
class Finished:
    """All steps are done, or the caller asked to stop (`complete` False)."""

    step: int
    complete: bool
    seed: int


Event = StepCompleted | Preparing | Preview | LiveMeshMade | Checkpoint | Health | Restarted | Finished
