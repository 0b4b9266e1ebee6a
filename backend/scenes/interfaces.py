# SPDX-License-Identifier: GPL-3.0-or-later
"""What a trainer asks of a scene, and the state of a scene that a resumed run needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..config.schema import Config
from ..geometry.build import Mesh, MeshReport
from ..geometry.live_mesh import LiveMesh
from ..text.prompts import PromptEmbeddings

Verdict = Literal["fine", "folded", "empty", "full", "diverged"]
VERDICTS: tuple[Verdict, ...] = ("fine", "folded", "empty", "full", "diverged")  # from the best to the worst
FAILED: frozenset[Verdict] = frozenset(("empty", "full", "diverged"))  # a run with such a scene does not go on


class DivergedError(Exception):
    """The scene, not the guidance, brought NaN or infinity into a step; another seed may do better."""


@dataclass(frozen=True)
class RunState:
    """Everything that a resumed run needs: steps done, the seed in use, restarts so far, and tensors by name."""

    step: int
    seed: int
    restarts: int
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class SceneHealth:
    """A verdict with its figures and one line about them."""

    verdict: Verdict
    figures: Mapping[str, float]
    message: str


class Scene(Protocol):
    """Something that is optimized step by step and can be made into a mesh at any time.

    config: all settings. prompts: the embeddings that guide it. seed: of every random number. warnings, notices: lines
    for the user. can_restart: whether another seed begins elsewhere. check_shares: shares of the run after which
    `check` is worth its time. has_field: whether another run can start from its state. is_consistent: False while the
    optimizer writes, when an error leaves a state that must not be saved.
    """

    can_restart: bool
    check_shares: tuple[float, ...]
    has_field: bool

    @property
    def config(self) -> Config: ...

    @property
    def prompts(self) -> PromptEmbeddings: ...

    @property
    def seed(self) -> int: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...

    @property
    def notices(self) -> tuple[str, ...]: ...

    @property
    def step(self) -> int:
        """Steps done."""
        ...

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """Steps after which each stage of the run ends, rising; the last is the number of all steps."""
        ...

    @property
    def preparation(self) -> str:
        """What the next step makes first, which may take much longer than a step, in a few words; "" for nothing."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether no step is left to take."""
        ...

    @property
    def is_consistent(self) -> bool: ...

    def train_step(self) -> dict[str, float]:
        """Take one optimization step; returns named figures.

        Raises DivergedError for an image or a gradient that is not finite, before anything was changed, and whatever
        the guidance raises. After an out-of-memory error the random streams are as before the step.
        """
        ...

    def preview(self) -> NDArray[np.uint8]:
        """An image (h, w, 3) of the scene as it is."""
        ...

    def live_mesh(self) -> LiveMesh:
        """A coarse mesh of the scene as it is, made quickly; changes nothing. Raises RunError without a surface."""
        ...

    def check(self) -> SceneHealth:
        """Measure whether the run is worth going on with."""
        ...

    def advice(self, verdict: Verdict) -> str:
        """What to change when a run fails with this verdict."""
        ...

    def shared_tensors(self) -> list[Tensor]:
        """The tensors that all processes of a job hold alike, in one order."""
        ...

    def state(self) -> RunState:
        """The state for an exact resume, on the CPU; `restarts` is 0."""
        ...

    def load(self, state: RunState) -> None:
        """Continue from a state. Raises CheckpointError when it does not fit."""
        ...

    def to_mesh(
        self, progress: Callable[[float], None] = ..., should_stop: Callable[[], bool] = ...
    ) -> tuple[Mesh, MeshReport]:
        """The mesh of the scene as it is. `progress` gets the baked share of a texture; a stopped bake leaves it out.

        Raises RunError when there is no surface.
        """
        ...

    def provenance(self) -> Mapping[str, Any]:
        """Facts of the mesh's origin beside prompt, model and settings."""
        ...
