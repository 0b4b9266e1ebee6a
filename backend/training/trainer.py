# SPDX-License-Identifier: GPL-3.0-or-later
"""The optimization loop: yields events, keeps no files, knows no network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from ..config.schema import Config
from ..errors import NonFiniteError, OutOfMemoryError, RunError, is_out_of_memory, one_line
from ..guidance.interfaces import Guidance
from ..rendering.shading import Shading
from ..runtime.distributed import ProcessGroup, SingleProcess
from ..scenes.field_scene import DivergedError, FieldScene
from ..scenes.initial_field import InitialField
from ..text.prompts import PromptEmbeddings
from .events import (
    Checkpoint,
    Event,
    Finished,
    Health,
    Preview,
    Progress,
    Restarted,
    RunState,
)
from .monitoring import CHECK_SHARES, all_finite, check_run

VERDICTS = ("fine", "empty", "full", "diverged")  # ranks agree on the last of theirs
ADVICE = {
    "empty": "try another prompt or seed, or a larger guidance.omega",
    "full": "try another prompt or seed, or a larger regularizers.opacity_end",
    "diverged": "try another seed, or a smaller optimizer.learning_rate",
}
SEED_STRIDE = 7919  # a restart's seed is the old one plus this prime, so that seeds 0, 1, 2 share no restarts
PREVIEW_RESOLUTION = 96  # pixels a side of one preview tile
LIT = Shading("shaded", 0.35, 0.65)
CLAY = Shading("textureless", 0.35, 0.65)


def optimize(
    config: Config,
    guidance: Guidance,
    bank: PromptEmbeddings,
    resume: RunState | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.monotonic,
    ranks: ProcessGroup = SingleProcess(),
    origin: InitialField | None = None,
) -> Run:
    """A run to iterate over, from `resume` or else from `origin`'s field; its `scene` holds the field.

    Raises CheckpointError for a state or a field that does not fit.
    """
    return Run(config, guidance, bank, resume, should_stop, device, clock, ranks, origin)


class Run:
    """Iterating yields `Event`s until the steps are done or `should_stop` says so on any rank (asked after every step).

    The main rank alone makes previews and checkpoints. `warnings` holds what the person should know before it starts.
    """

    def __init__(
        self,
        config: Config,
        guidance: Guidance,
        bank: PromptEmbeddings,
        resume: RunState | None,
        should_stop: Callable[[], bool],
        device: torch.device | str,
        clock: Callable[[], float],
        ranks: ProcessGroup = SingleProcess(),
        origin: InitialField | None = None,
    ) -> None:
        self.config, self.guidance, self.bank, self.ranks = config, guidance, bank, ranks
        self.origin = origin
        self.device, self._should_stop, self._clock = device, should_stop, clock
        self.restarts = 0 if resume is None else resume.restarts
        seed = config.run.seed if resume is None else resume.seed
        self.scene = self._begun(seed)
        self.warnings = (self.scene.notice,) if self.scene.notice else ()
        if resume is not None:
            self.scene.load(resume)

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.scene.step

    @property
    def seed(self) -> int:
        """The seed it goes on with, which restarts change."""
        return self.scene.seed

    def _begun(self, seed: int) -> FieldScene:
        """A scene before its first step."""
        scene = FieldScene(self.config, self.guidance, self.bank, seed, self.device, self.ranks)
        if self.origin is not None:
            scene.initialize_from(self.origin)
        return scene

    def __iter__(self) -> Iterator[Event]:
        """Raises OutOfMemoryError after a last checkpoint of the newest whole step, where there is one."""
        shortage = ""
        try:
            yield from self._events()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            shortage = one_line(error)
        if not shortage:
            return
        # Only here, where the failed step's tensors are gone with its traceback, is there memory for a checkpoint.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        saved = self.scene.whole
        if saved and self.ranks.main:
            yield Checkpoint(self.scene.state(self.restarts))
        kept = f"step {self.scene.step} is in a checkpoint" if saved else "the last checkpoint is kept"
        raise OutOfMemoryError(f"out of memory after step {self.scene.step} ({shortage}); {kept}")

    def _events(self) -> Iterator[Event]:
        run, steps = self.config.run, self.config.run.steps
        checks = {max(1, round(share * steps)) for share in CHECK_SHARES}
        begun, first = self._clock(), self.scene.step
        self.ranks.check_same(f"{self.bank.texts} {self.config} {first} {self.scene.seed} {self.restarts}")
        self.ranks.share(self.scene.shared())
        while self.scene.step < steps:
            try:
                scalars = self.scene.train_step()
            except DivergedError as error:  # seen at once rather than at the next check, and never written to a checkpoint
                health = Health(self.scene.step, "diverged", {}, str(error))
                yield health
                yield self._restart(health)
                begun, first = self._clock(), self.scene.step
                continue
            step = self.scene.step
            elapsed = self._clock() - begun
            pace = elapsed / max(1, step - first)
            yield Progress(step, steps, elapsed, pace * (steps - step), scalars)
            if step in checks:
                health = self._health()
                yield health
                if health.verdict != "fine":
                    yield self._restart(health)
                    begun, first = self._clock(), self.scene.step
                    continue
            if self.ranks.main and (step % run.preview_interval == 0 or step == steps):
                yield Preview(step, self._preview())
            stopping = self.ranks.all_reduce_max(self._should_stop()) > 0 and step < steps
            if stopping or step % run.checkpoint_interval == 0 or step == steps:
                self.ranks.share(
                    self.scene.shared()
                )  # should arithmetic differ between machines, they stay together
                if self.ranks.main:
                    yield Checkpoint(self.scene.state(self.restarts))
            if stopping:
                yield Finished(step, False, self.scene.seed)
                return
        yield Finished(self.scene.step, True, self.scene.seed)

    def _health(self) -> Health:
        seen = self.scene.orbit([0, 60, 120, 180, 240, 300], LIT, 32)
        finite = all_finite(p.detach() for p in self.scene.field.parameters())
        health = check_run(self.scene.step, seen.opacity, seen.image, finite)
        return replace(health, verdict=VERDICTS[self.ranks.all_reduce_max(VERDICTS.index(health.verdict))])

    def _restart(self, health: Health) -> Restarted:
        """Begin anew from another seed. Raises RunError, or NonFiniteError, when the restarts are used up."""
        old = self.scene.seed
        if self.restarts >= self.config.run.max_restarts:
            kind = NonFiniteError if health.verdict == "diverged" else RunError
            raise kind(
                f"the run went {health.verdict} at step {health.step} ({health.message}) after {self.restarts} restarts; "
                f"{ADVICE[health.verdict]}"
            )
        self.restarts += 1
        new = (old + SEED_STRIDE) % 2**31
        self.scene = self._begun(new)
        return Restarted(health.step, old, new, health.message)

    def _preview(self) -> np.ndarray:
        """Front and right in color, and the front as clay, side by side: (96, 288, 3) uint8."""
        lit = self.scene.orbit([20, 110], LIT, PREVIEW_RESOLUTION).image
        clay = self.scene.orbit([20], CLAY, PREVIEW_RESOLUTION).image
        row = torch.cat([*lit, *clay], dim=2).clamp(0, 1)
        return (row.permute(1, 2, 0).cpu().numpy() * 255 + 0.5).astype(np.uint8)
