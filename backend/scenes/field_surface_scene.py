# SPDX-License-Identifier: GPL-3.0-or-later
"""Two stages in one run: a field is optimized, then the vertices and colors of its mesh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config.schema import Config
from ..errors import CheckpointError, one_line
from ..geometry.build import Mesh, MeshReport
from ..geometry.live_mesh import LiveMesh
from ..geometry.tint import tinted
from ..guidance.interfaces import Guidance
from ..text.prompts import PromptEmbeddings
from .field_scene import FieldScene
from .interfaces import DivergedError, RunState, SceneHealth, Verdict
from .state_tensors import with_prefix, without_prefix
from .surface_scene import PARTS, SurfaceScene, surface_tensors
from .textured_surface_scene import TexturedSurfaceScene

PREFIX = "surface."  # of the second stage's tensors in a state
MADE = "surface.mesh."  # of the mesh that it begins with


class FieldSurfaceScene:
    """A `FieldScene` for run.steps steps, then a `SurfaceScene` of its mesh for surface.steps more.

    The first step of the second stage makes the mesh. The main process of a group makes it for all, which then share
    the views of a step as they did before. From there on the field stays as it is: a texture's detail comes from it,
    and other runs may begin with it. `guidance`: of the second stage. `prompts`: embeddings of that guidance's model,
    where it is another than the field's.
    """

    can_restart = True
    has_field = True

    def __init__(self, field: FieldScene, guidance: Guidance, prompts: PromptEmbeddings | None = None) -> None:
        self.field, self._guidance = field, guidance
        self._prompts = field.prompts if prompts is None else prompts
        self.surface: SurfaceScene | None = None
        self._made: Mapping[str, Tensor] = {}
        total = self.config.total_steps
        shares = [share * self.config.run.steps / total for share in field.check_shares]
        self.check_shares = (*shares, 1.0)

    # --- what both stages have

    @property
    def active(self) -> FieldScene | SurfaceScene:
        """The scene of the present stage."""
        return self.field if self.surface is None else self.surface

    @property
    def config(self) -> Config:
        """All settings."""
        return self.field.config

    @property
    def prompts(self) -> PromptEmbeddings:
        """The embeddings that guide the field."""
        return self.field.prompts

    @property
    def seed(self) -> int:
        """Of every random number."""
        return self.field.seed

    @property
    def warnings(self) -> tuple[str, ...]:
        """Lines for the user."""
        return self.field.warnings

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines for the user."""
        stage = f"{self.config.run.steps} steps of a field, then {self.config.surface.steps} of its mesh"
        return (*self.field.notices, stage)

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """See `Scene.stage_ends`."""
        return (self.config.run.steps, self.config.total_steps)

    @property
    def step(self) -> int:
        """Steps done in both stages."""
        return self.field.step + (self.surface.step if self.surface else 0)

    @property
    def is_done(self) -> bool:
        """Whether no step is left to take."""
        return self.step >= self.config.total_steps

    @property
    def is_consistent(self) -> bool:
        """See `Scene`."""
        return self.active.is_consistent

    @property
    def preparation(self) -> str:
        """See `Scene.preparation`."""
        return "making the mesh of the field" if self.surface is None and self.field.is_done else ""

    def train_step(self) -> dict[str, float]:
        """See `Scene.train_step`."""
        if self.preparation:
            self._begin_surface(self._shared_mesh())
        return self.active.train_step()

    def preview(self) -> NDArray[np.uint8]:
        """See `Scene.preview`."""
        return self.active.preview()

    def live_mesh(self) -> LiveMesh:
        """See `Scene.live_mesh`."""
        return self.active.live_mesh()

    def check(self) -> SceneHealth:
        """See `Scene.check`."""
        return self.active.check()

    def advice(self, verdict: Verdict) -> str:
        """See `Scene.advice`."""
        return self.active.advice(verdict)

    def shared_tensors(self) -> list[Tensor]:
        """See `Scene.shared_tensors`."""
        return self.active.shared_tensors()

    def provenance(self) -> Mapping[str, Any]:
        """That of the field, and the steps of its mesh."""
        return {**self.field.provenance(), "surface_steps": self.surface.step if self.surface else 0}

    # --- between the stages

    def _shared_mesh(self) -> dict[str, Tensor]:
        """The field's mesh, made by the main process of the group. Raises RunError when there is no surface."""
        group, tensors = self.field.group, dict[str, Tensor]()
        with group.raise_on_all(DivergedError):
            if group.is_main:
                size = self.config.mesh.texture if self.config.surface.texture_rate > 0 else 0
                tensors = surface_tensors(*self.field.mesh_of(replace(self.config.mesh, texture=size)))
        counts = torch.tensor([len(tensors[name]) if name in tensors else 0 for name in PARTS])
        group.broadcast([counts])
        for (name, (dtype, columns)), count in zip(PARTS.items(), counts.tolist(), strict=True):
            if count:
                tensors.setdefault(name, torch.empty(count, columns, dtype=dtype))
        group.broadcast([tensors[name] for name in PARTS if name in tensors])
        return tensors

    def _begin_surface(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with this mesh; the memory of the field's optimizer is given back."""
        field = self.field
        kind = TexturedSurfaceScene if "texels" in tensors else SurfaceScene
        self.surface = kind(self.config, self._guidance, self._prompts, tensors, self.seed, field.device, field.group)
        self._made = dict(tensors)
        field.optimizer.state.clear()

    def to_mesh(
        self, progress: Callable[[float], None] = lambda share: None, should_stop: Callable[[], bool] = lambda: False
    ) -> tuple[Mesh, MeshReport]:
        """See `Scene.to_mesh`: the field's mesh until the second stage has begun, then the optimized one.

        A texture that the stage did not optimize is the field's, with the changes of the vertices' colors added.
        """
        if self.surface is None:
            return self.field.to_mesh(progress, should_stop)
        mesh, report = self.surface.to_mesh()
        if not self.config.mesh.texture or isinstance(self.surface, TexturedSurfaceScene):
            return mesh, report
        before, _ = self.field.to_mesh(progress, should_stop)
        if not np.array_equal(before.faces, mesh.faces):  # settings of the mesh, or the machine, changed in between
            warning = "the field makes another mesh than the one that was optimized, so it has vertex colors only"
            return mesh, replace(report, warnings=(*report.warnings, warning))
        if before.texture is None:
            return mesh, report
        texture = tinted(before.texture, mesh.faces, self.surface.tints())
        return replace(mesh, texture=texture), replace(report, texture=len(texture.image))

    # --- state

    def state(self) -> RunState:
        """See `Scene.state`."""
        if self.surface is None:
            return self.field.state()
        tensors = {**self.field.module_tensors(), **with_prefix(MADE, self._made)}
        return RunState(self.step, self.seed, 0, tensors | with_prefix(PREFIX, self.surface.state().tensors))

    def load(self, state: RunState) -> None:
        """See `Scene.load`."""
        made = without_prefix(MADE, state.tensors)
        if not made:
            self.field.load(state)
            return
        self.field.load_modules(state.tensors)
        self.field.step, self.field.seed = self.config.run.steps, state.seed
        try:
            self._begin_surface(made)
        except (KeyError, RuntimeError, ValueError, IndexError) as error:
            raise CheckpointError(
                f"the checkpoint holds no mesh of a field ({one_line(error)}); start afresh without --resume"
            ) from error
        self.active.load(
            replace(state, step=state.step - self.field.step, tensors=without_prefix(PREFIX, state.tensors))
        )
