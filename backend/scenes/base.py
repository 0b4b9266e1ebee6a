# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenes have in common: random streams, steps that are taken whole or undone, and views in chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config.schema import Config
from ..errors import ConfigError, is_out_of_memory
from ..guidance.interfaces import Guidance, learner_of
from ..runtime.distributed import ProcessGroup, SingleProcess
from ..runtime.rng import RandomStreams
from ..text.prompts import PromptEmbeddings
from .interfaces import RunState
from .state_tensors import load_optimizer, optimizer_tensors, with_prefix, without_prefix
from .views import split_views

LEARNER = "guidance."  # of what the guidance trains, in a state
COUNTS = frozenset({"samples"})  # figures that add up over chunks; the others are means over views


class OptimizedScene(ABC):
    """A scene with one optimizer.

    A step renders `run.views_per_step` views, those of this process in chunks of `run.views_at_once`. `streams`: names
    of the random streams, "noise" among them. Raises ConfigError when the views do not divide evenly among the
    processes of the group.
    """

    can_restart = False
    has_field = False
    check_shares: tuple[float, ...] = (0.15, 0.3, 0.6)  # where a verdict can still save time
    optimizer: torch.optim.Optimizer

    def __init__(
        self,
        config: Config,
        guidance: Guidance,
        prompts: PromptEmbeddings,
        seed: int,
        device: torch.device | str,
        streams: Sequence[str],
        group: ProcessGroup | None = None,
    ) -> None:
        self.config, self.guidance, self.prompts, self.seed = config, guidance, prompts, seed
        self.device, self.group = torch.device(device), group or SingleProcess()
        self.streams = RandomStreams(streams, seed, 0, slice(0))
        self._set_views(config.run.views_per_step, "run.views_per_step")
        self.learner = learner_of(guidance)
        self.step = 0
        self.is_consistent = True
        self.warnings: tuple[str, ...] = ()
        self.notices: tuple[str, ...] = ()

    def _set_views(self, views: int, setting: str) -> None:
        """Render this many views a step from now on, as the setting says. Raises ConfigError as the class does."""
        self.views, self.local_views = views, self.group.local_views(views, setting)
        in_set = self.config.camera.views_per_set
        if (self.local_views.stop - self.local_views.start) % in_set:
            raise ConfigError(
                f"{setting} is {views} on {self.group.world_size} ranks and camera.views_per_set is {in_set}; allowed "
                f"are multiples of {in_set * self.group.world_size}, as each rank renders whole sets"
            )
        self.chunks = split_views(self.local_views, self.config.run.views_at_once, in_set)
        self.streams.draw_for(views, self.local_views)

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        return self.step / self.config.run.steps

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """See `Scene.stage_ends`: one stage."""
        return (self.config.run.steps,)

    @property
    def preparation(self) -> str:
        """See `Scene.preparation`: none."""
        return ""

    @property
    def is_done(self) -> bool:
        """Whether no step is left to take."""
        return self.step >= self.config.run.steps

    def train_step(self) -> dict[str, float]:
        """See `Scene.train_step`; errors are raised in all processes of the group."""
        before = self._snapshot()
        try:
            figures = self._backward()
            if self.learner is not None:
                self.group.average_gradients(self.learner.finish_gradients())
        except Exception as error:
            self.optimizer.zero_grad(set_to_none=True)
            if self.learner is not None:
                self.learner.discard_gradients()
            if is_out_of_memory(error):
                self._restore_rng(before)
            raise
        self.is_consistent = False
        self._optimizer_step()
        if self.learner is not None:
            self.learner.optimizer.step()
            self.learner.discard_gradients()
        self.is_consistent = True
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return self.group.all_reduce_mean(figures)

    @abstractmethod
    def _backward(self) -> dict[str, float]:
        """Leave the gradients of one step; returns its figures."""

    @abstractmethod
    def preview(self) -> NDArray[np.uint8]:
        """See `Scene.preview`."""

    def _optimizer_step(self) -> None:
        self.optimizer.step()

    def _snapshot(self) -> dict[str, Tensor]:
        """What a step changes before its optimizer steps."""
        return self.streams.snapshot()

    def _restore_rng(self, before: Mapping[str, Tensor]) -> None:
        """Back to what `_snapshot` returned."""
        self.streams.restore(before)

    def _for_each_chunk(self, chunk_gradients: Callable[[slice, float], Mapping[str, float]]) -> dict[str, float]:
        """Call with each chunk of this process's views and its share of them; the figures of all.

        Every chunk begins with the same noise stream, of which it keeps the rows of its own views.
        """
        noise, total = self.streams["noise"], dict[str, float]()
        before, count = noise.get_state(), self.local_views.stop - self.local_views.start
        for chunk in self.chunks:
            noise.set_state(before)
            noise.local_views = chunk
            share = (chunk.stop - chunk.start) / count
            for name, value in chunk_gradients(chunk, share).items():
                total[name] = total.get(name, 0.0) + (value if name in COUNTS else share * value)
        return total

    def shared_tensors(self) -> list[Tensor]:
        """See `Scene.shared_tensors`; here what the guidance trains."""
        return [] if self.learner is None else [weight.detach() for weight in self.learner.weights.values()]

    def learner_tensors(self) -> dict[str, Tensor]:
        """Copies of what the guidance trains and of its optimizer's state, on the CPU."""
        if self.learner is None:
            return {}
        state = with_prefix("optimizer.", optimizer_tensors(self.learner.optimizer))
        return with_prefix(LEARNER, with_prefix("weights.", self.learner.weights) | state)

    def load_learner(self, state: RunState) -> None:
        """Take over the `learner_tensors` of a state. Raises KeyError or ValueError when they do not fit."""
        if self.learner is None:
            return
        tensors = without_prefix(LEARNER, state.tensors)
        weights = without_prefix("weights.", tensors)
        for name, weight in self.learner.weights.items():
            if weights[name].shape != weight.shape:
                raise ValueError(f"{LEARNER}weights.{name} has another shape")
        load_optimizer(self.learner.optimizer, without_prefix("optimizer.", tensors), required=state.step > 0)
        with torch.no_grad():
            for name, weight in self.learner.weights.items():
                weight.copy_(weights[name])

    def provenance(self) -> Mapping[str, Any]:
        """See `Scene.provenance`."""
        return {}
