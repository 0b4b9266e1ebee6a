# SPDX-License-Identifier: GPL-3.0-or-later
"""A radiance field that a guidance optimizes: one step renders random views and follows the guidance (section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..cameras.poses import Cameras, camera_rays, orbit_cameras
from ..config.schedules import view_resolution, views_per_step
from ..config.schema import Config, MeshConfig
from ..errors import CheckpointError, OutOfMemoryError, is_out_of_memory, one_line
from ..fields import build_background, build_field
from ..geometry.build import Mesh, MeshReport, build_mesh
from ..geometry.compare import FieldViews
from ..geometry.live_mesh import LiveMesh, live_mesh_of_field
from ..guidance.interfaces import Guidance
from ..optimizers.factory import build_optimizer, learning_rate, set_learning_rate
from ..rendering.renderer import Rendering
from ..rendering.renderer_choice import build_renderer
from ..rendering.sampling import sphere_interval
from ..rendering.shading import Shading
from ..runtime.distributed import ProcessGroup
from ..text.prompts import PromptEmbeddings
from .base import OptimizedScene
from .field_losses import field_penalties, orientation_weight
from .initial_field import InitialField, first_step
from .interfaces import DivergedError, RunState, SceneHealth, Verdict
from .monitoring import all_finite, check_run
from .state_tensors import load_optimizer, optimizer_tensors, parameters_of, with_prefix, without_prefix
from .view_guidance import background_for, guidance_loss
from .views import (
    CHECK_AZIMUTHS,
    CHECK_RESOLUTION,
    ORBIT_DISTANCE,
    ORBIT_ELEVATION,
    ORBIT_FOCAL,
    ORBIT_RADIUS,
    SHADED,
    StepViews,
    camera_lights,
    preview_image,
    sample_views,
)

STREAMS = ("cameras", "looks", "noise", "jitter")
ADVICE = {
    "empty": "try another prompt or seed, or a larger guidance.omega",
    "full": "try another prompt or seed, or a larger regularizers.opacity_end",
    "diverged": "try another seed, or a smaller optimizer.learning_rate",
}


@contextmanager
def _fitting() -> Iterator[None]:
    """Turn errors about tensors of another run into a CheckpointError."""
    try:
        yield
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint does not fit this run ({one_line(error)}); give the prompt, preset and settings that it "
            "was made with, or start afresh without --resume"
        ) from error


class FieldScene(OptimizedScene):
    """Field, background, renderer, optimizer and random streams of one run.

    All processes of a group draw the random numbers of all views, and each renders its own; their gradients are
    averaged, so that all hold the same field. `warnings` tells of a GPU without its fast marcher. Raises ConfigError
    when the views do not divide among the processes, or the device lacks what the settings demand.
    """

    can_restart = True
    has_field = True

    def __init__(
        self,
        config: Config,
        guidance: Guidance,
        prompts: PromptEmbeddings,
        seed: int,
        device: torch.device | str = "cpu",
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__(config, guidance, prompts, seed, device, STREAMS, group)
        if config.render.coarse_views:
            self._set_views(config.render.coarse_views, "render.coarse_views")  # refused here, not at a later step
        weights = torch.Generator().manual_seed(seed)
        self.field = build_field(config.field, weights).to(self.device)
        self.background = build_background(config.background, weights).to(self.device)
        self.renderer, warning = build_renderer(config.render, config.field, self.device)
        self.warnings = (warning,) if warning else ()
        groups = self.field.parameter_groups(config.optimizer)
        background = list(self.background.parameters())
        groups.append({"params": background, "rate_multiplier": config.optimizer.background_rate_multiplier})
        self.optimizer = build_optimizer(config.optimizer, groups)
        self._origin: InitialField | None = None

    def _modules(self) -> dict[str, nn.Module]:
        return {"field": self.field, "background": self.background, "renderer": self.renderer}

    # --- one step

    def _backward(self) -> dict[str, float]:
        """Leave the gradients that all processes agree on. Raises DivergedError in all of them."""
        config, progress = self.config, self.progress
        self._set_views(views_per_step(config, progress), "run.views_per_step")
        set_learning_rate(self.optimizer, learning_rate(config.optimizer, progress))
        self.field.begin_step(progress)
        if config.render.occupancy_resolution and self.step % config.render.occupancy_interval == 0:
            self.renderer.update_occupancy(self.field, self.streams["jitter"])
        with self.group.raise_on_all(DivergedError):
            figures = self._guidance_gradients(progress)
        self.group.average_gradients(parameters_of(self.optimizer))
        return figures

    def _snapshot(self) -> dict[str, Tensor]:
        """The random streams and the occupancy grid."""
        return super()._snapshot() | {name: value.clone() for name, value in self.renderer.state_dict().items()}

    def _restore_rng(self, before: Mapping[str, Tensor]) -> None:
        super()._restore_rng(before)
        self.renderer.load_state_dict({name: value for name, value in before.items() if name not in self.streams})

    def _guidance_gradients(self, progress: float) -> dict[str, float]:
        """Render this process's views chunk by chunk and leave the gradients of their mean; returns figures."""
        size = view_resolution(self.config.render, progress)
        drawn = sample_views(self.config, self.views, progress, self.streams)
        # One lit view gives normals to all of them, whichever process renders it, so that all compute the same.
        lit = any(shading.diffuse > 0 for shading in drawn.shadings)
        with_normals = lit or orientation_weight(self.config.regularizers, progress) > 0
        jitter = self.renderer.draw_jitter(drawn.cameras.to(self.device), size, self.streams["jitter"])

        def chunk_gradients(chunk: slice, share: float) -> dict[str, float]:
            if chunk.start > self.local_views.start:
                self.field.begin_step(progress)  # the graph that the views of a step share was freed with its gradient
            views = drawn[chunk].to(self.device)
            return self._chunk_gradients(views, jitter[chunk], with_normals, progress, share)

        return self._for_each_chunk(chunk_gradients)

    def _chunk_gradients(
        self, views: StepViews, jitter: Tensor, with_normals: bool, progress: float, share: float
    ) -> dict[str, float]:
        """Add `share` times the gradients of the mean of these views; returns their figures."""
        size = round(jitter.shape[1] ** 0.5)
        background = background_for(self.guidance, self._backgrounds(views, size))
        rendering = self.renderer.render(
            self.field, background, views.cameras, views.shadings, views.lights, size, jitter, with_normals
        )
        if not all_finite([rendering.image.detach()]):
            raise DivergedError("the rendered image holds NaN or infinity")
        image, opacity = self._enlarged(rendering.image), self._enlarged(rendering.opacity)
        loss, figures = guidance_loss(
            self.guidance, self.prompts, image, opacity, views, self.streams["noise"], progress
        )
        penalties = field_penalties(self.config.regularizers, rendering, self.field, progress)
        (share * (loss + penalties)).backward()
        if not all_finite(p.grad for p in parameters_of(self.optimizer) if p.grad is not None):
            raise DivergedError("the field's gradient holds NaN or infinity")
        figures["opacity"] = float(rendering.opacity.detach().mean())
        figures["samples"] = float(rendering.sample_count * self.group.world_size)
        return figures

    def _enlarged(self, images: Tensor) -> Tensor:
        """Coarse images (n, c, r, r) at the resolution that the guidance gets."""
        size = self.config.render.resolution
        if images.shape[-1] == size:
            return images
        return functional.interpolate(images, (size, size), mode="bilinear", align_corners=False)

    def _backgrounds(self, views: StepViews, resolution: int) -> Tensor:
        """Background colors (n, r*r, 3): the learned one, or for some views a random plain color."""
        pixels = resolution * resolution
        directions = camera_rays(views.cameras, resolution).directions.reshape(-1, 3)
        learned: Tensor = self.background(directions).view(len(views), pixels, 3)
        return torch.where(views.has_plain[:, None, None], views.plain[:, None].expand(-1, pixels, 3), learned)

    # --- views of the field as it is

    @torch.no_grad()
    def view(self, cameras: Cameras, shadings: Sequence[Shading], resolution: int, gray: float = 0.75) -> Rendering:
        """Deterministic renderings before a gray background, the light beside the camera."""
        self.field.begin_step(self.progress)
        placed = cameras.to(self.device)
        colors = torch.full((len(cameras), resolution**2, 3), gray, device=self.device)
        return self.renderer.render(self.field, colors, placed, shadings, camera_lights(placed), resolution)

    def orbit(
        self, azimuths: Sequence[float], shading: Shading, resolution: int, elevation: float = ORBIT_ELEVATION
    ) -> Rendering:
        """The field from upright cameras around it (degrees)."""
        cameras = orbit_cameras(azimuths, elevation, ORBIT_DISTANCE, ORBIT_FOCAL)
        return self.view(cameras, [shading] * len(azimuths), resolution)

    def preview(self) -> NDArray[np.uint8]:
        """See `Scene.preview`."""
        return preview_image(self.orbit)

    @torch.no_grad()
    def live_mesh(self) -> LiveMesh:
        """See `Scene.live_mesh`."""
        self.field.begin_step(self.progress)
        return live_mesh_of_field(self.field, self.config.mesh.threshold, self.config.mesh.height_m)

    def check(self) -> SceneHealth:
        """See `Scene.check`."""
        seen = self.orbit(CHECK_AZIMUTHS, SHADED, CHECK_RESOLUTION)
        finite = all_finite(parameter.detach() for parameter in self.field.parameters())
        return check_run(seen.opacity, seen.image, self._filled(seen.opacity), finite)

    def _filled(self, opacity: Tensor) -> float:
        """Mean opacity of the rays that meet the bounding sphere, from cameras that frame all of it.

        `opacity` (n, 1, r, r) of the check's views serves where these frame it already.
        """
        radius = self.config.field.bounding_radius
        distance = ORBIT_DISTANCE * max(1.0, radius / ORBIT_RADIUS)
        cameras = orbit_cameras(CHECK_AZIMUTHS, ORBIT_ELEVATION, distance, ORBIT_FOCAL)
        if radius > ORBIT_RADIUS:
            opacity = self.view(cameras, [Shading()] * len(cameras), CHECK_RESOLUTION).opacity
        rays = camera_rays(cameras, CHECK_RESOLUTION)
        meets = sphere_interval(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3), radius)[2]
        return float(opacity.reshape(-1)[meets.to(opacity.device)].mean())

    def advice(self, verdict: Verdict) -> str:
        """See `Scene.advice`."""
        return ADVICE[verdict]

    # --- state

    def shared_tensors(self) -> list[Tensor]:
        """Weights and grids."""
        own = [tensor for module in self._modules().values() for tensor in module.state_dict().values()]
        return [*own, *super().shared_tensors()]

    def state(self) -> RunState:
        """See `Scene.state`."""
        tensors = self.module_tensors() | with_prefix("optimizer.", optimizer_tensors(self.optimizer))
        tensors |= with_prefix("stream.", self.streams.snapshot()) | self.learner_tensors()
        return RunState(self.step, self.seed, 0, tensors)

    def module_tensors(self) -> dict[str, Tensor]:
        """Copies of the weights and grids, on the CPU."""
        return {
            name: value
            for module_name, module in self._modules().items()
            for name, value in with_prefix(f"{module_name}.", module.state_dict()).items()
        }

    def load(self, state: RunState) -> None:
        """See `Scene.load`."""
        self.load_modules(state.tensors)
        with _fitting():
            load_optimizer(self.optimizer, without_prefix("optimizer.", state.tensors), required=state.step > 0)
            self.load_learner(state)
            self.streams.restore(without_prefix("stream.", state.tensors))
        self.step, self.seed = state.step, state.seed

    def load_modules(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the weights and grids of `module_tensors`. Raises CheckpointError when they do not fit."""
        with _fitting():
            for name, module in self._modules().items():
                module.load_state_dict(without_prefix(f"{name}.", tensors))

    def initialize_from(self, origin: InitialField) -> None:
        """Take over another run's field, and the schedules from `run.finetune_share` on.

        The optimizer and the random streams stay fresh.
        Raises CheckpointError when the field is of another kind or size than this configuration's.
        """
        try:
            self.field.load_state_dict(without_prefix("field.", origin.tensors))
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"the field of {origin.prompt!r} does not fit this run ({one_line(error)}); begin from it with the "
                "preset and "
                "the field settings that it was made with"
            ) from error
        try:
            self.background.load_state_dict(without_prefix("background.", origin.tensors))
        except (KeyError, RuntimeError, ValueError):
            self.warnings += ("the background begins anew: it is of another kind than before",)
        self._origin, self.step = origin, first_step(self.config.run)

    # --- the mesh

    def to_mesh(
        self, progress: Callable[[float], None] = lambda share: None, should_stop: Callable[[], bool] = lambda: False
    ) -> tuple[Mesh, MeshReport]:
        """The field's surface, see `Scene.to_mesh`. Raises OutOfMemoryError with advice."""
        return self.mesh_of(self.config.mesh, progress, should_stop)

    @torch.no_grad()
    def mesh_of(
        self,
        config: MeshConfig,
        progress: Callable[[float], None] = lambda share: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> tuple[Mesh, MeshReport]:
        """`to_mesh` with other settings of the mesh."""

        def albedo(cameras: Cameras) -> tuple[Tensor, Tensor]:
            seen = self.view(cameras, [Shading()] * len(cameras), 64, gray=1.0)
            return seen.image, seen.opacity

        self.field.begin_step(self.progress)
        views = FieldViews(orbit_cameras([0, 90, 180, 270], 20.0, ORBIT_DISTANCE, ORBIT_FOCAL), albedo)
        try:
            return build_mesh(self.field, config, views, progress=progress, should_stop=should_stop)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"out of memory while making the mesh of {config.resolution} cells a side; lower "
                "mesh.resolution "
                "and continue with --resume: the checkpoint is kept"
            ) from error

    def provenance(self) -> Mapping[str, Any]:
        """The prompt of the run whose field this one began from."""
        return {} if self._origin is None else {"finetuned_from": self._origin.prompt}
