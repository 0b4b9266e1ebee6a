# SPDX-License-Identifier: GPL-3.0-or-later
"""A mesh whose vertices and colors a guidance optimizes: one step renders random views and follows the guidance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamwright.shared.numbers import number_text

from ..cameras.poses import Cameras, orbit_cameras
from ..config.schedules import warmup_cosine
from ..config.schema import Config
from ..errors import CheckpointError, one_line
from ..geometry.build import Mesh, MeshReport
from ..geometry.color import linear_to_display
from ..geometry.input_mesh import InputMesh
from ..geometry.live_mesh import LiveMesh, live_mesh_of_surface
from ..geometry.topology import Surface, edges_of, face_pairs
from ..guidance.interfaces import Guidance
from ..mesh_rendering.render import MeshRendering, Topology, render_mesh
from ..mesh_rendering.texture_map import TextureMap
from ..optimizers.uniform_adam import UniformAdam
from ..rendering.shading import Shading
from ..runtime.distributed import ProcessGroup
from ..text.prompts import PromptEmbeddings
from .base import OptimizedScene
from .interfaces import DivergedError, RunState, SceneHealth, Verdict
from .large_steps import LargeStepsParameterization
from .mesh_losses import (
    edge_energy,
    edge_lengths,
    folded_share,
    laplacian_energy,
    normal_energy,
    sparse_tensor,
    uniform_laplacian,
)
from .monitoring import all_finite
from .state_tensors import load_optimizer, optimizer_tensors, with_prefix, without_prefix
from .view_guidance import background_for, guidance_loss
from .views import (
    ORBIT_DISTANCE,
    ORBIT_ELEVATION,
    ORBIT_FOCAL,
    StepViews,
    camera_lights,
    preview_image,
    sample_views,
)

STREAMS = ("cameras", "looks", "noise")
FINAL_RATE = 0.1  # of the first learning rate
WARMUP_SHARE = 0.02  # of the run
GREY = 0.55  # background of views without a random plain color
FOLDED_SHARE = 0.02  # of the faces, above which a surface is crumpled rather than moved
SHORTEST_EDGE = 1e-2  # of the mean length: slivers of the input must not outweigh the rest


class MeshScene(OptimizedScene):
    """A mesh's offsets u and w, their optimizer and random streams.

    A vertex is at v + b x / sqrt(b^2 + |x|^2) with x = (I + stiffness L)^-1 u and b = strength * reach, so it never
    moves by b; a color at c + (I + color_stiffness L)^-1 w with every |w| <= strength * color_reach, which bounds its
    change too.
    """

    check_shares = (*OptimizedScene.check_shares, 1.0)
    gentler = "a smaller strength"  # what to change where the surface goes wrong

    def __init__(
        self,
        config: Config,
        guidance: Guidance,
        prompts: PromptEmbeddings,
        input_mesh: InputMesh,
        seed: int,
        device: torch.device | str = "cpu",
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__(config, guidance, prompts, seed, device, STREAMS, group)
        self.input_mesh, refine = input_mesh, config.refine
        faces, places = input_mesh.welded_faces, len(input_mesh.unit)
        self.topology = Topology.of(input_mesh.unit, faces, refine.crease, input_mesh.faces).to(self.device)
        self.rest = torch.from_numpy(input_mesh.unit).float().to(self.device)
        self.colors = torch.from_numpy(input_mesh.display).float().to(self.device)
        laplacian = uniform_laplacian(faces, places)
        self._vertex_steps = LargeStepsParameterization(laplacian, refine.stiffness)
        color_laplacian = uniform_laplacian(input_mesh.faces, len(input_mesh.vertices))
        self._color_steps = LargeStepsParameterization(color_laplacian, refine.color_stiffness)
        self._edges = torch.from_numpy(edges_of(faces)).to(self.device)
        self._pairs = torch.from_numpy(face_pairs(faces)).to(self.device)
        lengths = edge_lengths(self.rest, self._edges)
        self._lengths = lengths.clamp(min=float(lengths.mean()) * SHORTEST_EDGE)
        degree = laplacian.diagonal().clip(min=1.0)
        normalized = laplacian.multiply(1 / degree[:, None]).tocsr() / float(lengths.mean())
        self._laplacian = sparse_tensor(normalized, self.rest)
        self.vertex_offsets = torch.zeros_like(self.rest).requires_grad_(refine.positions)
        self.color_offsets = torch.zeros_like(self.colors).requires_grad_(refine.colors)
        groups = [
            {"params": [self.vertex_offsets], "rate": refine.position_rate},
            {"params": [self.color_offsets], "rate": refine.color_rate},
        ]
        self.optimizer = UniformAdam(groups)
        self.parameters = {"vertex_offsets": self.vertex_offsets, "color_offsets": self.color_offsets}
        moved = 100 * refine.strength * refine.reach / 0.5
        size = f"{len(input_mesh.vertices)} vertices, {len(input_mesh.faces)} triangles"
        bound = f"no vertex moves more than {moved:.0f}% of the mesh's radius"
        self.notices = (f"{size}; strength {number_text(refine.strength)}: {bound}",)
        self.warnings = input_mesh.notices

    @property
    def is_done(self) -> bool:
        """Whether no step is left to take; at strength 0 none is."""
        return super().is_done or self.config.refine.strength == 0

    @property
    def optimizes_vertices(self) -> bool:
        """Whether vertices move."""
        return self.config.refine.positions and self.config.refine.strength * self.config.refine.reach > 0

    @property
    def optimizes_colors(self) -> bool:
        """Whether colors change."""
        return self.config.refine.colors and self.config.refine.strength > 0

    def displacements(self) -> Tensor:
        """(W, 3) by which each place is moved, scene units."""
        if not self.optimizes_vertices:
            return torch.zeros_like(self.rest)
        bound = self.config.refine.strength * self.config.refine.reach
        wanted = self._vertex_steps.solve(self.vertex_offsets)
        return wanted * bound / torch.sqrt(bound**2 + wanted.square().sum(-1, keepdim=True))

    def color_changes(self) -> Tensor:
        """(V, 3) by which each color is changed, display sRGB."""
        return self._color_steps.solve(self.color_offsets) if self.optimizes_colors else torch.zeros_like(self.colors)

    def values(self) -> tuple[Tensor, ...]:
        """What is rendered, differentiable in the parameters: displacements first, then color changes."""
        return self.displacements(), self.color_changes()

    # --- one step

    def _backward(self) -> dict[str, float]:
        """Leave the gradients of one step. Raises DivergedError."""
        drawn = sample_views(self.config, self.views, self.progress, self.streams)
        if not self.renders_untextured():
            drawn = drawn.without_untextured()
        values = self.values()
        # Chunks leave their gradients at these leaves, so that no two chunks' images are held at once.
        leaves = [value.detach().requires_grad_(value.requires_grad) for value in values]

        def chunk_gradients(chunk: slice, share: float) -> dict[str, float]:
            loss, figures = self._chunk_loss(leaves, drawn[chunk].to(self.device))
            if loss.requires_grad:
                (share * loss).backward()
            return figures

        with self.group.raise_on_all(DivergedError):
            figures = self._for_each_chunk(chunk_gradients)
        penalty, penalty_figures = self.penalties(values[0])
        total = penalty if self.config.refine.positions else torch.zeros_like(penalty)
        for leaf, value in zip(leaves, values, strict=True):
            if leaf.grad is not None:
                total = total + (leaf.grad * value).sum()
        if total.requires_grad:
            total.backward()
        parameters = tuple(self.parameters.values())
        self.group.average_gradients(parameters)
        if not all_finite(p.grad for p in parameters if p.grad is not None):
            raise DivergedError("the mesh's gradient holds NaN or infinity")
        return {**figures, **penalty_figures}

    def _chunk_loss(self, values: Sequence[Tensor], views: StepViews) -> tuple[Tensor, dict[str, float]]:
        """The guidance's loss of some views of `values`, mean over them, and figures."""
        plain = torch.where(views.has_plain[:, None], views.plain, torch.full_like(views.plain, GREY))
        background = background_for(self.guidance, plain)
        size = self.config.render.resolution
        seen = self._render(values, background, views.cameras, views.shadings, views.lights, size)
        if not all_finite([seen.image.detach()]):
            raise DivergedError("the rendered image holds NaN or infinity")
        noise = self.streams["noise"]
        loss, figures = guidance_loss(
            self.guidance, self.prompts, seen.image, seen.opacity, views, noise, self.progress
        )
        return loss, {**figures, "opacity": float(seen.opacity.detach().mean())}

    def renders_untextured(self) -> bool:
        """Whether views may be textureless; those of a mesh whose vertices stay have nothing to optimize."""
        return self.config.refine.positions

    def penalties(self, displacements: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The weighted regularizers of displacements (W, 3), a scalar, and their figures."""
        refine = self.config.refine
        smoothness = laplacian_energy(self._laplacian, displacements)
        stretching = edge_energy(self.rest + displacements, self._edges, self._lengths)
        total = refine.laplacian * smoothness + refine.edges * stretching
        figures = {"laplacian": float(smoothness.detach()), "stretching": float(stretching.detach())}
        if refine.normals > 0:
            bending = normal_energy(self.rest + displacements, self.topology.faces, self._pairs)
            total = total + refine.normals * bending
            figures["bending"] = float(bending.detach())
        return total, figures

    def _optimizer_step(self) -> None:
        strength = self.config.refine.strength
        for group in self.optimizer.param_groups:
            rate = group["rate"]
            group["lr"] = warmup_cosine(0.0, rate, FINAL_RATE * rate, WARMUP_SHARE, self.progress) * strength
        self.optimizer.step()
        limit = strength * self.config.refine.color_reach
        with torch.no_grad():
            highest, lowest = (1 - self.colors).clamp(max=limit), (-self.colors).clamp(min=-limit)
            self.color_offsets.copy_(torch.maximum(torch.minimum(self.color_offsets, highest), lowest))

    def _render(
        self,
        values: Sequence[Tensor],
        background: Tensor,
        cameras: Cameras,
        shadings: Sequence[Shading],
        lights: Tensor,
        resolution: int,
    ) -> MeshRendering:
        colors, texture = self._paint(values)
        vertices, samples = self.rest + values[0], self.config.refine.supersampling
        return render_mesh(
            self.topology, vertices, colors, background, cameras, shadings, lights, resolution, samples, texture
        )

    def _paint(self, values: Sequence[Tensor]) -> tuple[Tensor, TextureMap | None]:
        """Colors of the vertices (V, 3), display sRGB, and the texture that they are added to, if there is one."""
        return (self.colors + values[1]).clamp(0, 1), None

    # --- views and figures of the mesh as it is

    @torch.no_grad()
    def orbit(
        self, azimuths: Sequence[float], shading: Shading, resolution: int, elevation: float = ORBIT_ELEVATION
    ) -> MeshRendering:
        """The mesh from upright cameras around it (degrees), before gray, the light beside the camera."""
        cameras = orbit_cameras(azimuths, elevation, ORBIT_DISTANCE, ORBIT_FOCAL).to(self.device)
        gray, shadings = torch.full((len(cameras), 3), 0.75, device=self.device), [shading] * len(cameras)
        return self._render(self.values(), gray, cameras, shadings, camera_lights(cameras), resolution)

    def preview(self) -> NDArray[np.uint8]:
        """See `Scene.preview`."""
        return preview_image(self.orbit)

    @torch.no_grad()
    def live_mesh(self) -> LiveMesh:
        """See `Scene.live_mesh`; in the place and size of the mesh that was given."""
        mesh = self._changed()
        surface = Surface(mesh.vertices.astype(np.float64), mesh.faces.astype(np.int64))
        return live_mesh_of_surface(surface, linear_to_display(mesh.albedo))

    @torch.no_grad()
    def _changed(self) -> Mesh:
        changes = (value.cpu().double().numpy() for value in (self.displacements(), self.color_changes()))
        return self.input_mesh.changed(*changes)

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """moved, moved_most (scene units), recolored (display sRGB, root mean square), folded (share of the faces)."""
        displacements, color_changes = self.displacements(), self.color_changes()
        length = displacements.norm(dim=-1)
        return {
            "moved": float(length.mean()),
            "moved_most": float(length.max()),
            "recolored": float(color_changes.square().mean().sqrt()),
            "folded": folded_share(self.rest + displacements, self.topology.faces, self.rest),
        }

    def check(self) -> SceneHealth:
        """See `Scene.check`."""
        figures = self.figures()
        folded = f"{100 * figures['folded']:.1f}% of the faces folded over"
        message = f"moved {figures['moved']:.3f} of a radius-0.5 mesh, {folded}"
        if "inside" in figures:
            message += f", {100 * figures['inside']:.1f}% of the visible surface is its inside"
        if not all(map(math.isfinite, figures.values())):
            return SceneHealth("diverged", figures, "the mesh holds NaN or infinity")
        if figures["folded"] > FOLDED_SHARE:
            advice = f"{self.gentler} or a larger refine.stiffness folds less"
            return SceneHealth("folded", figures, f"{message}; {advice}")
        return SceneHealth("fine", figures, message)

    def advice(self, verdict: Verdict) -> str:
        """See `Scene.advice`."""
        return f"try another seed, {self.gentler} or a smaller refine.position_rate"

    def shared_tensors(self) -> list[Tensor]:
        """The offsets."""
        return [*self.parameters.values(), *super().shared_tensors()]

    def to_mesh(
        self, progress: Callable[[float], None] = lambda share: None, should_stop: Callable[[], bool] = lambda: False
    ) -> tuple[Mesh, MeshReport]:
        """The mesh in the place, size and vertex order of the one that was given; made at once."""
        mesh = self._changed()
        surface = Surface(mesh.vertices.astype(np.float64), mesh.faces.astype(np.int64))
        report = MeshReport.of(
            surface, mesh, scale=1.0, offset=np.zeros(3), threshold=0.0, cell=0.0, components_dropped=0,
            triangles_extracted=len(mesh.faces), error=None, folded=self.figures()["folded"],
        )  # fmt: skip
        return mesh, report

    def provenance(self) -> Mapping[str, Any]:
        """How far the mesh was allowed to change."""
        return {"strength": self.config.refine.strength}

    # --- state

    def state(self) -> RunState:
        """See `Scene.state`."""
        tensors = with_prefix("", self.parameters)
        tensors |= with_prefix("optimizer.", optimizer_tensors(self.optimizer))
        tensors |= with_prefix("stream.", self.streams.snapshot()) | self.learner_tensors()
        return RunState(self.step, self.seed, 0, tensors)

    def load(self, state: RunState) -> None:
        """See `Scene.load`."""
        tensors = state.tensors
        try:
            for name, value in self.parameters.items():
                if tensors[name].shape != value.shape:
                    raise ValueError(f"{name} has another shape")
            required = state.step > 0 and (self.optimizes_vertices or self.optimizes_colors)
            load_optimizer(self.optimizer, without_prefix("optimizer.", tensors), required)
            self.load_learner(state)
            with torch.no_grad():
                for name, value in self.parameters.items():
                    value.copy_(tensors[name])
            self.streams.restore(without_prefix("stream.", tensors))
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint does not fit this mesh ({one_line(error)}); give the mesh, prompt and settings that "
                "it was made "
                "with, or start afresh without --resume"
            ) from error
        self.step, self.seed = state.step, state.seed
