# SPDX-License-Identifier: GPL-3.0-or-later
"""Two models in one run, of which one is in memory at a time: that of the stage that is optimized."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import Tensor

from ..cameras.poses import Cameras
from ..guidance.interfaces import Guidance, GuidanceResult
from ..text.conditioning import PromptConditioning


class OneAtATime:
    """Which of several guidances is loaded: at most one, the last that was used."""

    def __init__(self) -> None:
        self._current: SwappedGuidance | None = None

    def give_to(self, wanted: SwappedGuidance) -> None:
        """Free the model of another guidance before this one loads its own."""
        if self._current is not None and self._current is not wanted:
            self._current.free()
        self._current = wanted


class SwappedGuidance:
    """A guidance without a learner whose model `load` reads when it is first needed, also after it was freed.

    `turn` is shared with the other guidances of the run. Implements `Guidance`.
    """

    def __init__(self, load: Callable[[], Guidance], turn: OneAtATime) -> None:
        self._load, self._turn = load, turn
        self._loaded: Guidance | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._loaded is not None

    def loaded(self) -> Guidance:
        """The guidance with its model in memory, and no other's. Raises what `load` raises."""
        self._turn.give_to(self)
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def free(self) -> None:
        """Give the model's memory back."""
        self._loaded = None
        gc.collect()  # networks hold references to themselves
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def gradient(
        self,
        image: Tensor,
        cameras: Cameras | None,
        conditioning: PromptConditioning,
        generator: torch.Generator,
        progress: float,
    ) -> GuidanceResult:
        """See `Guidance`."""
        return self.loaded().gradient(image, cameras, conditioning, generator, progress)
