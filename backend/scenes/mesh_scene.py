# SPDX-License-Identifier: GPL-3.0-or-later
"""One refinement's state and one step of it: render random views of the mesh, ask the guidance, move vertices and colors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..cameras.poses import Cameras, orbit_cameras, sample_cameras, sample_lights
from ..config.schedules import warmup_cosine
from ..config.schema import Config, GuidanceConfig
from ..errors import CheckpointError, one_line
from ..fields.background import plain_colors
from ..geometry.build import Mesh
from ..geometry.input_mesh import InputMesh
from ..guidance.interfaces import Guidance, LayeredGuidance
from ..mesh_rendering.render import MeshRendering, Topology, render_mesh
from ..rendering.shading import Shading, sample_shading
from ..runtime.rng import PerViewGenerator
from ..text.prompts import PromptEmbeddings
from ..training.events import RunState
from ..training.monitoring import all_finite
from .field_scene import ORBIT_DISTANCE, ORBIT_FOCAL, DivergedError
from .large_steps import LargeStepsParameterization, UniformAdam
from .mesh_losses import (
    edge_energy,
    edge_lengths,
    edges_of,
    folded_share,
    laplacian_energy,
    sparse_tensor,
    uniform_laplacian,
)

STREAMS = ("cameras", "looks", "noise")  # one generator each, so that adding draws to one leaves the others
FINAL_RATE = 0.1  # of the first
PLAIN = 0.55  # grey behind views that draw no random background


def guidance_for(config: GuidanceConfig, strength: float) -> GuidanceConfig:
    """The guidance's times at this strength: t_max comes down to half its way from t_min as strength falls to 0, since
    little noise asks for small changes only.
    """
    share = 0.5 + 0.5 * strength
    high, end = (config.t_min + (t - config.t_min) * share for t in (config.t_max, config.t_max_end))
    return replace(config, t_max=high, t_max_end=end)


class MeshScene:
    """A mesh's offsets u and tints, their optimizer and random streams.

    A vertex is at v + b x / sqrt(b^2 + |x|^2) with x = (I + stiffness L)^-1 u and b = strength * reach, so it never moves b
    far; a color at c + (I + color_stiffness L)^-1 w with every |w| <= strength * color_reach, so neither does it.
    """

    gentler = "a smaller strength"  # what to lower where a run goes wrong

    def __init__(
        self,
        config: Config,
        guidance: Guidance,
        bank: PromptEmbeddings,
        subject: InputMesh,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.guidance, self.bank, self.subject, self.seed = config, guidance, bank, subject, seed
        self.device, refine = torch.device(device), config.refine
        faces, places = subject.welded_faces, len(subject.unit)
        self.topology = Topology.of(subject.unit, faces, refine.crease, subject.faces).to(self.device)
        self.rest = torch.from_numpy(subject.unit).float().to(self.device)
        self.colors = torch.from_numpy(subject.display).float().to(self.device)
        laplacian = uniform_laplacian(faces, places)
        self._steps = LargeStepsParameterization(laplacian, refine.stiffness)
        self._tint_steps = LargeStepsParameterization(uniform_laplacian(subject.faces, len(subject.vertices)), refine.color_stiffness)
        self._edges = torch.from_numpy(edges_of(faces)).to(self.device)
        lengths = edge_lengths(self.rest, self._edges)
        self._lengths = lengths.clamp(
            min=float(lengths.mean()) * 1e-2
        )  # slivers of the input must not outweigh the rest
        degree = laplacian.diagonal().clip(min=1.0)
        self._laplacian = sparse_tensor(
            laplacian.multiply(1 / degree[:, None]).tocsr() / float(lengths.mean()), self.rest
        )
        self.offset = torch.zeros_like(self.rest).requires_grad_(refine.positions)
        self.tint = torch.zeros_like(self.colors).requires_grad_(refine.colors)
        groups = [
            {"params": [self.offset], "rate": refine.position_rate},
            {"params": [self.tint], "rate": refine.color_rate},
        ]
        self.optimizer = UniformAdam(groups)
        self.streams = {
            name: torch.Generator().manual_seed(seed * len(STREAMS) + k + 1) for k, name in enumerate(STREAMS)
        }
        views, size = config.run.views_per_step, config.run.views_at_once or config.run.views_per_step
        self.groups = [slice(start, min(start + size, views)) for start in range(0, views, size)]
        if len(self.groups) > 1:  # then each group draws as if it had all views, and keeps its own
            self.streams["noise"] = PerViewGenerator.of(
                views, self.groups[0], seed * len(STREAMS) + STREAMS.index("noise") + 1
            )
        self.step = 0

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        return self.step / self.config.run.steps

    def moves(self) -> Tensor:
        """(W, 3) by which each place is moved, scene units."""
        bound = self.config.refine.strength * self.config.refine.reach
        if bound == 0 or not self.config.refine.positions:
            return torch.zeros_like(self.rest)
        wanted = self._steps.solve(self.offset)
        return wanted * bound / torch.sqrt(bound**2 + wanted.square().sum(-1, keepdim=True))

    def tints(self) -> Tensor:
        """(V, 3) by which each color is changed, display sRGB."""
        if self.config.refine.strength == 0 or not self.config.refine.colors:
            return torch.zeros_like(self.colors)
        return self._tint_steps.solve(self.tint)

    def train_step(self) -> dict[str, float]:
        """One step; returns named figures.

        Raises RunError when the guidance fails, and DivergedError when the picture or the gradients are not finite; then the
        optimizer has not stepped.
        """
        config, views, progress = self.config, self.config.run.views_per_step, self.progress
        cameras = sample_cameras(config.camera, views, self.streams["cameras"])
        lights = sample_lights(config.light, cameras, self.streams["cameras"]).to(self.device)
        shadings = [sample_shading(config.shading, progress, self.streams["looks"]) for _ in range(views)]
        if not self.renders_untextured():
            shadings = [replace(s, kind="shaded") if s.kind == "textureless" else s for s in shadings]
        backdrop = self._backdrop().to(self.device)
        moves, tints = self.moves(), self.tints()
        one, noise = len(self.groups) == 1, self.streams["noise"]
        # Groups of views leave their gradients at these, so that no two groups' pictures are held at once.
        leaves = (moves, tints) if one else tuple(t.detach().requires_grad_(t.requires_grad) for t in (moves, tints))
        before, loss, figures = noise.get_state(), 0.0, {}
        for rows in self.groups:
            if not one:
                noise.set_state(before)
                noise.rows = rows
            share = (rows.stop - rows.start) / views
            part, told = self._judged(*leaves, cameras[rows], lights[rows], shadings[rows], backdrop[rows], progress)
            part = share * part
            if not one and part.requires_grad:
                part.backward()
            loss = part if one else loss
            figures = {name: figures.get(name, 0.0) + share * value for name, value in told.items()}
        if not one:
            loss = sum(
                (leaf.grad * whole).sum() for leaf, whole in zip(leaves, (moves, tints)) if leaf.grad is not None
            )
        penalty, told = self.penalties(moves)
        if config.refine.positions:
            loss = loss + penalty
        if isinstance(loss, Tensor) and loss.requires_grad:
            loss.backward()
        gradients = [p.grad for p in (self.offset, self.tint) if p.grad is not None]
        if not all_finite(gradients):
            self.optimizer.zero_grad(set_to_none=True)
            raise DivergedError("the mesh's gradient holds NaN or infinity")
        self._update(progress)
        return {**figures, **told}

    def _judged(
        self,
        moves: Tensor,
        tints: Tensor,
        cameras: Cameras,
        lights: Tensor,
        shadings: Sequence[Shading],
        backdrop: Tensor,
        progress: float,
    ) -> tuple[Tensor, dict[str, float]]:
        """What the guidance says of some views, as a scalar with the right gradient (mean over views), and figures.

        A guidance that chooses what stands behind the mesh is shown it before black, with its opacity.
        """
        placed, layered = cameras.to(self.device), isinstance(self.guidance, LayeredGuidance)
        backdrop = torch.zeros_like(backdrop) if layered else backdrop
        seen = self._render(moves, tints, backdrop, placed, shadings, lights, self.config.render.resolution)
        if not all_finite([seen.image.detach()]):
            raise DivergedError("the rendered image holds NaN or infinity")
        conditioning = self.bank.for_cameras(cameras.azimuth, cameras.elevation, [s.kind for s in shadings])
        shown, noise = seen.image.clamp(0, 1), self.streams["noise"]
        if layered:
            result = self.guidance.layer_gradients(shown, seen.opacity, placed, conditioning, noise, progress)
            guided = (result.color.detach() * seen.image).sum() + (result.opacity.detach() * seen.opacity).sum()
        else:
            result = self.guidance.gradient(shown, placed, conditioning, noise, progress)
            guided = (result.gradient.detach() * seen.image).sum()
        return guided / len(cameras), {**result.scalars, "opacity": float(seen.opacity.detach().mean())}

    def renders_untextured(self) -> bool:
        """Whether views may be textureless; one says nothing about colors."""
        return self.config.refine.positions

    def penalties(self, moves: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The weighted regularizers of moves (W, 3), a scalar, and their figures."""
        refine = self.config.refine
        smoothness = laplacian_energy(self._laplacian, moves)
        stretching = edge_energy(self.rest + moves, self._edges, self._lengths)
        total = refine.laplacian * smoothness + refine.edges * stretching
        return total, {"laplacian": float(smoothness.detach()), "stretching": float(stretching.detach())}

    def _update(self, progress: float) -> None:
        strength = self.config.refine.strength
        for group in self.optimizer.param_groups:
            group["lr"] = warmup_cosine(0.0, group["rate"], FINAL_RATE * group["rate"], 0.02, progress) * strength
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        limit = strength * self.config.refine.color_reach
        with torch.no_grad():
            self.tint.copy_(
                torch.maximum(
                    torch.minimum(self.tint, (1 - self.colors).clamp(max=limit)), (-self.colors).clamp(min=-limit)
                )
            )
        self.step += 1

    def _backdrop(self) -> Tensor:
        """A plain color (n, 3) behind each view."""
        c = self.config.background
        plain, chosen = plain_colors(torch.rand(self.config.run.views_per_step, 4, generator=self.streams["looks"]), c)
        return torch.where(chosen[:, None], plain, torch.full_like(plain, PLAIN))

    def _render(
        self,
        moves: Tensor,
        tints: Tensor,
        backdrop: Tensor,
        cameras: Cameras,
        shadings: Sequence[Shading],
        lights: Tensor,
        size: int,
    ) -> MeshRendering:
        where, what = self.rest + moves, (self.colors + tints).clamp(0, 1)
        return render_mesh(
            self.topology, where, what, backdrop, cameras, shadings, lights, size, self.config.refine.supersampling
        )

    @torch.no_grad()
    def orbit(
        self, azimuths: Sequence[float], shading: Shading, resolution: int, elevation: float = 15.0
    ) -> MeshRendering:
        """The mesh as it is from upright cameras around it, before grey, the light beside the camera."""
        cameras = orbit_cameras(azimuths, elevation, ORBIT_DISTANCE, ORBIT_FOCAL).to(self.device)
        lights = cameras.position * 0.8 + cameras.rotation[:, :, 1] * 0.6 - cameras.rotation[:, :, 0] * 0.5
        grey = torch.full((len(cameras), 3), 0.75, device=self.device)
        return self._render(self.moves(), self.tints(), grey, cameras, [shading] * len(cameras), lights, resolution)

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """moved and moved_most (scene units), tinted (display sRGB, root mean square), folded (share of the faces)."""
        moves, tints = self.moves(), self.tints()
        length = moves.norm(dim=-1)
        return {
            "moved": float(length.mean()),
            "moved_most": float(length.max()),
            "tinted": float(tints.square().mean().sqrt()),
            "folded": folded_share(self.rest + moves, self.topology.faces, self.rest),
        }

    @torch.no_grad()
    def mesh(self) -> Mesh:
        """The refined mesh in the place, size and vertex order of the one that was given."""
        return self.subject.changed(self.moves().cpu().double().numpy(), self.tints().cpu().double().numpy())

    def state(self) -> RunState:
        """Everything that an exact resume needs."""
        tensors = {"offset": self.offset, "tint": self.tint}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in entry.items()}
        tensors |= {f"stream.{name}": generator.get_state() for name, generator in self.streams.items()}
        return RunState(
            self.step, self.seed, 0, {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
        )

    def load(self, state: RunState) -> None:
        """Continue from a state. Raises CheckpointError when it is no state of this mesh."""
        tensors: Mapping[str, Tensor] = state.tensors
        try:
            entries: dict[int, dict[str, Tensor]] = {}
            for name, value in tensors.items():
                if name.startswith("optimizer."):
                    _, index, key = name.split(".", 2)
                    entries.setdefault(int(index), {})[key] = value
            for index, own in enumerate((self.offset, self.tint)):
                kept = [tensors["offset" if index == 0 else "tint"]]
                kept += [entries[index][key] for key in ("exp_avg", "exp_avg_sq")] if index in entries else []
                if any(value.shape != own.shape for value in kept):
                    raise ValueError(f"parameter {index} has another shape")
            if state.step > 0 and not entries and self.config.refine.strength > 0:
                raise ValueError("the optimizer's state is missing")
            with torch.no_grad():
                self.offset.copy_(tensors["offset"])
                self.tint.copy_(tensors["tint"])
            self.optimizer.load_state_dict(
                {"state": entries, "param_groups": self.optimizer.state_dict()["param_groups"]}
            )
            for name, generator in self.streams.items():
                generator.set_state(tensors[f"stream.{name}"].to(torch.uint8).cpu())
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint does not fit this mesh ({one_line(error)}); give the mesh, prompt and settings that it was made "
                "with, or start afresh without --resume"
            ) from error
        self.step, self.seed = state.step, state.seed
