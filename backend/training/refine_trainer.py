# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop of a refinement: yields the events of `backend/training/events.py`, keeps no files, knows no network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from ..config.schema import Config
from ..errors import RunError
from ..geometry.input_mesh import InputMesh
from ..guidance.interfaces import Guidance
from ..scenes.field_scene import DivergedError
from ..scenes.mesh_scene import MeshScene
from ..text.prompts import PromptEmbeddings
from .events import Checkpoint, Event, Finished, Health, Preview, Progress, RunState
from .monitoring import CHECK_SHARES
from .trainer import CLAY, LIT, PREVIEW_RESOLUTION

FOLDED_SHARE = 0.02  # of the faces, above which a surface is crumpled rather than moved


class Refinement:
    """Iterating yields events until the steps are done or `should_stop` says so, asked after every step.

    At strength 0 there is nothing to do, and no step is taken. Raises CheckpointError for a state that does not fit, and,
    while iterating, RunError when the mesh diverges: its last checkpoint is whole. `kind` makes the scene.
    """

    origin: None = None  # as a `Run` has, which may begin from a field
    warnings: tuple[str, ...] = ()

    def __init__(
        self,
        config: Config,
        guidance: Guidance,
        bank: PromptEmbeddings,
        subject: InputMesh,
        resume: RunState | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        device: torch.device | str = "cpu",
        clock: Callable[[], float] = time.monotonic,
        kind: type[MeshScene] = MeshScene,
    ) -> None:
        self.config, self._should_stop, self._clock = config, should_stop, clock
        seed = config.run.seed if resume is None else resume.seed
        self.scene = kind(config, guidance, bank, subject, seed, device)
        if resume is not None:
            self.scene.load(resume)

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.scene.step

    @property
    def seed(self) -> int:
        """The seed it goes on with."""
        return self.scene.seed

    def __iter__(self) -> Iterator[Event]:
        run, scene = self.config.run, self.scene
        if self.config.refine.strength == 0:
            yield Finished(scene.step, True, scene.seed)
            return
        checks = {max(1, round(share * run.steps)) for share in (*CHECK_SHARES, 1.0)}
        begun, first = self._clock(), scene.step
        while scene.step < run.steps:
            try:
                scalars = scene.train_step()
            except DivergedError as error:
                yield Health(scene.step, "diverged", {}, str(error))
                raise RunError(
                    f"the refinement diverged at step {scene.step} ({error}); try another seed, {scene.gentler} or a smaller "
                    "refine.position_rate"
                ) from error
            step = scene.step
            elapsed = self._clock() - begun
            yield Progress(step, run.steps, elapsed, elapsed / max(1, step - first) * (run.steps - step), scalars)
            if step in checks:
                yield self._health()
            if step % run.preview_interval == 0 or step == run.steps:
                yield Preview(step, self._preview())
            stopping = self._should_stop() and step < run.steps
            if stopping or step % run.checkpoint_interval == 0 or step == run.steps:
                yield Checkpoint(scene.state())
            if stopping:
                yield Finished(step, False, scene.seed)
                return
        yield Finished(scene.step, True, scene.seed)

    def _health(self) -> Health:
        figures = self.scene.figures()
        told = f"moved {figures['moved']:.3f} of a radius-0.5 mesh, {100 * figures['folded']:.1f}% of the faces folded over"
        if "inside" in figures:
            told += f", {100 * figures['inside']:.1f}% of what is seen is its inside"
        if not all(np.isfinite(list(figures.values()))):
            raise RunError(
                f"the refinement diverged at step {self.scene.step}; try another seed or {self.scene.gentler}"
            )
        if figures["folded"] > FOLDED_SHARE:
            return Health(
                self.scene.step,
                "folded",
                figures,
                f"{told}; {self.scene.gentler} or larger refine.stiffness folds less",
            )
        return Health(self.scene.step, "fine", figures, told)

    def _preview(self) -> np.ndarray:
        """Front and right in color, and the front as clay, side by side: (96, 288, 3) uint8."""
        lit = self.scene.orbit([20, 110], LIT, PREVIEW_RESOLUTION).image
        clay = self.scene.orbit([20], CLAY, PREVIEW_RESOLUTION).image
        row = torch.cat([*lit, *clay], dim=2).clamp(0, 1)
        return (row.permute(1, 2, 0).cpu().numpy() * 255 + 0.5).astype(np.uint8)
