# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run tells its caller while it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Progress:
    """A step was taken: steps done of `steps`, seconds since (re)start and to go, named figures."""

    step: int
    steps: int
    elapsed_s: float
    eta_s: float
    scalars: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Preview:
    """A picture (h, w, 3) uint8 of the field after `step` steps."""

    step: int
    image: np.ndarray


@dataclass(frozen=True)
class RunState:
    """Everything that a resumed run needs: tensors by name, and plain values for JSON."""

    step: int
    seed: int
    restarts: int
    tensors: Mapping[str, Tensor]
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A state worth keeping; writing it is the caller's business."""

    state: RunState


@dataclass(frozen=True)
class Health:
    """A verdict on the run: "fine", "empty", "full" or "diverged", with figures."""

    step: int
    verdict: str
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


Event = Progress | Preview | Checkpoint | Health | Restarted | Finished
