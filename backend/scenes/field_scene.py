# SPDX-License-Identifier: GPL-3.0-or-later
"""One run's state and one step of it: render random views, ask the guidance, move the field (section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..cameras.poses import Cameras, camera_rays, orbit_cameras, sample_cameras, sample_lights
from ..config.schedules import exponential, linear
from ..config.schema import Config
from ..errors import CheckpointError, is_out_of_memory, one_line
from ..fields import build_background, build_field
from ..fields.background import plain_colors
from ..guidance.interfaces import Guidance, LayeredGuidance
from ..rendering.marching import MARCHERS, choose_marching
from ..rendering.renderer import Renderer, Rendering
from ..rendering.shading import Shading, sample_shading
from ..runtime.distributed import SingleProcess, ProcessGroup
from ..runtime.rng import PerViewGenerator
from ..text.prompts import PromptEmbeddings
from ..training.events import RunState
from ..training.monitoring import all_finite
from ..training.optimizers.factory import build_optimizer, learning_rate, set_learning_rate
from .field_losses import opacity_entropy, opacity_loss, transmittance_loss
from .initial_field import InitialField, first_step

STREAMS = ("cameras", "looks", "noise", "jitter")  # one generator each, so that adding draws to one leaves the others
ORBIT_DISTANCE, ORBIT_FOCAL = 1.9, 1.5  # scene units, image widths: a radius-0.5 prop fills four fifths


class DivergedError(Exception):
    """The field, not the guidance, brought NaN or infinity into a step; another seed may do better."""


class FieldScene:
    """Field, background, renderer, optimizer and random streams of one run.

    ProcessGroup draw alike for all views of a step, and each renders and judges its own; then their gradients are averaged, so
    that all hold one and the same field. `notice` says what the person may want to know of this device, or nothing.
    Raises ConfigError when the views do not divide among the ranks, or the device lacks what the settings demand.
    """

    def __init__(
        self,
        config: Config,
        guidance: Guidance,
        bank: PromptEmbeddings,
        seed: int,
        device: torch.device | str = "cpu",
        ranks: ProcessGroup = SingleProcess(),
    ) -> None:
        self.config, self.guidance, self.bank, self.seed = config, guidance, bank, seed
        self.ranks, self.views = ranks, config.run.views_per_step
        self.rows = ranks.rows(self.views)
        self.device = torch.device(device)
        weights = torch.Generator().manual_seed(seed)
        self.field = build_field(config.field, weights).to(self.device)
        self.background = build_background(config.background, weights).to(self.device)
        marching, self.notice = choose_marching(config.render.marching, self.device)
        self.renderer = Renderer(config.render, config.field.bounding_radius, MARCHERS[marching]).to(self.device)
        groups = self.field.parameter_groups(config.optimizer)
        groups.append(
            {
                "params": list(self.background.parameters()),
                "rate_multiplier": config.optimizer.background_rate_multiplier,
            }
        )
        self.optimizer = build_optimizer(config.optimizer, groups)
        self.groups = self._groups()
        self.streams = {name: self._stream(seed * len(STREAMS) + index + 1) for index, name in enumerate(STREAMS)}
        self.step = 0
        self.whole = True  # False while the optimizer writes, when an error leaves a state that nobody should keep

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        return self.step / self.config.run.steps

    def train_step(self) -> dict[str, float]:
        """One optimization step; returns named figures.

        Raises RunError when the guidance fails, and DivergedError when the picture or the gradients are not finite; then the
        optimizer has not stepped. Either happens on all ranks. Out of memory before the optimizer stepped, everything
        is as it was before the step.
        """
        before = self._draws()
        try:
            figures = self._backward()
        except Exception as error:
            if is_out_of_memory(error):
                self._restore_rng(before)
            raise
        self.whole = False
        self.optimizer.step()
        self.whole = True
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return self.ranks.mean(figures)

    def _backward(self) -> dict[str, float]:
        """Everything of a step but the optimizer's own: leaves the gradients that all ranks agree on."""
        config, progress = self.config, self.progress
        set_learning_rate(self.optimizer, learning_rate(config.optimizer, progress))
        self.field.begin_step(progress)
        if config.render.occupancy_resolution and self.step % config.render.occupancy_interval == 0:
            self.renderer.update_occupancy(self.field, self.streams["jitter"])
        with self.ranks.raise_on_all(DivergedError):
            figures = self._find_gradients(progress)
        self.ranks.average(self._parameters())
        return figures

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _groups(self) -> list[slice]:
        """This rank's views in groups of `run.views_at_once`."""
        first, last = self.rows.start, self.rows.stop
        size = self.config.run.views_at_once or last - first
        return [slice(start, min(start + size, last)) for start in range(first, last, size)]

    def _stream(self, seed: int) -> torch.Generator:
        """A random stream from which groups and ranks draw as one process that has all views at once."""
        return (
            PerViewGenerator.of(self.views, self.rows, seed) if len(self.groups) > 1 else self.ranks.stream(self.views, seed)
        )

    def _draws(self) -> dict[str, Tensor]:
        """What a step changes before its optimizer steps: the streams and the occupancy grid."""
        states = {name: stream.get_state() for name, stream in self.streams.items()}
        return states | {name: value.clone() for name, value in self.renderer.state_dict().items()}

    def _restore_rng(self, before: Mapping[str, Tensor]) -> None:
        """To what `_draws` returned."""
        self.optimizer.zero_grad(set_to_none=True)
        for name, stream in self.streams.items():
            stream.set_state(before[name])
        self.renderer.load_state_dict({name: value for name, value in before.items() if name not in self.streams})

    def _find_gradients(self, progress: float) -> dict[str, float]:
        """Render and judge this rank's views, group by group, and leave the gradients of their mean; returns figures.

        Each group begins with the same random numbers, of which it keeps its own rows.
        """
        if len(self.groups) == 1:
            return self._guidance_gradients(self.groups[0], progress)
        before = {name: stream.get_state() for name, stream in self.streams.items()}
        total: dict[str, float] = {}
        for index, rows in enumerate(self.groups):
            if index:
                self.field.begin_step(progress)  # what the views of a step share was given back with its gradient
            for name, stream in self.streams.items():
                stream.set_state(before[name])
                stream.rows = rows
            share = (rows.stop - rows.start) / (self.rows.stop - self.rows.start)
            for name, value in self._guidance_gradients(rows, progress, share).items():
                total[name] = total.get(name, 0.0) + (value if name == "samples" else share * value)
        return total

    def _guidance_gradients(self, own: slice, progress: float, share: float = 1.0) -> dict[str, float]:
        """Render and judge some of the step's views and add `share` times the gradients of their mean."""
        config, streams = self.config, self.streams
        cameras = sample_cameras(config.camera, self.views, streams["cameras"])
        lights = sample_lights(config.light, cameras, streams["cameras"])[own].to(self.device)
        shadings = [sample_shading(config.shading, progress, streams["looks"]) for _ in range(self.views)]
        lit = any(s.diffuse > 0 for s in shadings)  # one lit view gives all of them normals, whoever renders it
        shadings = shadings[own]
        resolution = self._resolution()
        jitter = self.renderer.draw_jitter(cameras.to(self.device), resolution, streams["jitter"])
        cameras = cameras[own]
        placed = cameras.to(self.device)
        backdrop = self._backdrop(placed, resolution, own)
        layered = isinstance(self.guidance, LayeredGuidance)
        if layered:
            backdrop = torch.zeros_like(backdrop)  # the guidance chooses its own
        rendering = self.renderer.render(self.field, backdrop, placed, shadings, lights, resolution, jitter[own], lit)
        if not all_finite([rendering.image.detach()]):
            raise DivergedError("the rendered image holds NaN or infinity")
        conditioning = self.bank.for_cameras(cameras.azimuth, cameras.elevation, [s.kind for s in shadings])
        image = self._enlarged(rendering.image)
        if layered:
            opacity = self._enlarged(rendering.opacity)
            result = self.guidance.layer_gradients(image, opacity, placed, conditioning, streams["noise"], progress)
            guided = (result.color.detach() * image).sum() + (result.opacity.detach() * opacity).sum()
        else:
            result = self.guidance.gradient(image, placed, conditioning, streams["noise"], progress)
            guided = (result.gradient.detach() * image).sum()
        loss = guided / len(image) + self._penalties(rendering, progress)
        (loss if share == 1.0 else share * loss).backward()
        if not all_finite(p.grad for p in self._parameters() if p.grad is not None):
            raise DivergedError("the field's gradient holds NaN or infinity")
        return {
            **result.scalars,
            "opacity": float(rendering.opacity.detach().mean()),
            "samples": float(rendering.sample_count * self.ranks.count),
        }

    def _resolution(self) -> int:
        """Pixels a side of this step's views."""
        render = self.config.render
        coarse = 0 < render.coarse_resolution < render.resolution and self.progress < render.coarse_share
        return render.coarse_resolution if coarse else render.resolution

    def _enlarged(self, pictures: Tensor) -> Tensor:
        """Coarse pictures (n, c, r, r) at the resolution that the guidance is shown."""
        size = self.config.render.resolution
        if pictures.shape[-1] == size:
            return pictures
        return functional.interpolate(pictures, (size, size), mode="bilinear", align_corners=False)

    def _backdrop(self, cameras: Cameras, resolution: int, own: slice) -> Tensor:
        """Background colors (n, r*r, 3): the learned one, or for some views a random plain color."""
        looks, pixels, c = self.streams["looks"], resolution * resolution, self.config.background
        plain, chosen = plain_colors(torch.rand(self.views, 4, generator=looks)[own].to(self.device), c)
        directions = camera_rays(cameras, resolution).directions.reshape(-1, 3)
        learned = self.background(directions).view(len(cameras), pixels, 3)
        return torch.where(chosen[:, None, None], plain[:, None].expand(-1, pixels, 3), learned)

    def _penalties(self, rendering: Rendering, progress: float) -> Tensor:
        """Weighted regularizers (appendix A.2), a scalar."""
        c = self.config.regularizers
        orientation = linear(c.orientation_start, c.orientation_end, c.orientation_share, progress)
        opacity = linear(c.opacity_start, c.opacity_end, c.opacity_share, progress)
        entropy = c.entropy_end * max(0.0, 2 * progress - 1)  # in over the second half: fog first has to find its place
        total = orientation * rendering.orientation.sum() / len(rendering.image)
        if opacity > 0:
            total = total + opacity * opacity_loss(rendering.opacity)
        if entropy > 0:
            total = total + entropy * opacity_entropy(rendering.opacity)
        if c.transmittance > 0:
            target = exponential(c.target_opacity_start, c.target_opacity_end, c.target_opacity_share, progress)
            total = total + c.transmittance * transmittance_loss(rendering.opacity, target)
        if c.smoothness > 0:
            total = total + c.smoothness * self.field.smoothness()
        return total

    @torch.no_grad()
    def view(self, cameras: Cameras, shadings: Sequence[Shading], resolution: int, backdrop: float = 0.75) -> Rendering:
        """Deterministic pictures of the field as it is, before a grey backdrop, the light beside the camera."""
        self.field.begin_step(self.progress)
        placed = cameras.to(self.device)
        lights = placed.position * 0.8 + placed.rotation[:, :, 1] * 0.6 - placed.rotation[:, :, 0] * 0.5
        colors = torch.full((len(cameras), resolution**2, 3), backdrop, device=self.device)
        return self.renderer.render(self.field, colors, placed, shadings, lights, resolution)

    def orbit(self, azimuths: Sequence[float], shading: Shading, resolution: int, elevation: float = 15.0) -> Rendering:
        """The field from upright cameras around it."""
        cameras = orbit_cameras(azimuths, elevation, ORBIT_DISTANCE, ORBIT_FOCAL)
        return self.view(cameras, [shading] * len(azimuths), resolution)

    def shared(self) -> list[Tensor]:
        """What all ranks hold alike: weights and grids, in one order."""
        return [t for module in (self.field, self.background, self.renderer) for t in module.state_dict().values()]

    def state(self, restarts: int) -> RunState:
        """Everything that an exact resume needs."""
        tensors: dict[str, Tensor] = {}
        for name, module in (("field", self.field), ("background", self.background), ("renderer", self.renderer)):
            tensors |= {f"{name}.{key}": _kept(value) for key, value in module.state_dict().items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": _kept(value) for key, value in entry.items()}
        tensors |= {f"stream.{name}": generator.get_state() for name, generator in self.streams.items()}
        return RunState(self.step, self.seed, restarts, tensors)

    def load(self, state: RunState) -> None:
        """Continue from a state. Raises CheckpointError when it does not fit this configuration."""
        tensors = state.tensors
        try:
            for name, module in (("field", self.field), ("background", self.background), ("renderer", self.renderer)):
                module.load_state_dict(_under(f"{name}.", tensors))
            entries: dict[int, dict[str, Any]] = {}
            for name, value in _under("optimizer.", tensors).items():
                index, key = name.split(".", 1)
                entries.setdefault(int(index), {})[key] = value
            self._check_optimizer(entries, state.step)
            self.optimizer.load_state_dict(
                {"state": entries, "param_groups": self.optimizer.state_dict()["param_groups"]}
            )
            for name, generator in self.streams.items():
                generator.set_state(tensors[f"stream.{name}"].to(torch.uint8).cpu())
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint does not fit this run ({one_line(error)}); give the prompt, preset and settings that it was "
                "made with, or start afresh without --resume"
            ) from error
        self.step, self.seed = state.step, state.seed

    def initialize_from(self, origin: InitialField) -> None:
        """Take over another run's field, and its schedules from `run.finetune_share` on; optimizer and streams stay fresh.

        Raises CheckpointError when the field is of another kind or size than this configuration's.
        """
        try:
            self.field.load_state_dict(_under("field.", origin.tensors))
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"the field of {origin.prompt!r} does not fit this run ({one_line(error)}); begin from it with the preset and "
                "the field settings that it was made with"
            ) from error
        try:
            self.background.load_state_dict(_under("background.", origin.tensors))
        except (KeyError, RuntimeError, ValueError):
            self.notice = "; ".join(
                filter(None, (self.notice, "the background begins anew: it is of another kind than before"))
            )
        self.step = first_step(self.config.run)

    def _check_optimizer(self, entries: Mapping[int, Mapping[str, Any]], step: int) -> None:
        """Raise ValueError for no optimizer state after a step, states without their parameter, or of another shape.

        torch's own load_state_dict looks at none of these.
        """
        if step > 0 and not entries:
            raise ValueError("the optimizer's state is missing")
        parameters = self._parameters()
        for index, entry in entries.items():
            shape = parameters[index].shape if index < len(parameters) else None
            for key in ("exp_avg", "exp_avg_sq", "momentum"):
                if shape is None or (key in entry and entry[key].shape != shape):
                    raise ValueError(f"optimizer.{index}.{key} does not fit its parameter")


def _kept(value: Tensor) -> Tensor:
    """A copy in the machine's memory: the device's may have run out."""
    return value.detach().to("cpu", copy=True)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
