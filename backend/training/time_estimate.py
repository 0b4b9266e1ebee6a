# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a run will take, said before its first step: its counted work, divided by the device's measured speed.

Once steps are taken, the progress bar and the job's progress give the time left from the steps themselves (`pace`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dreamwright.shared.durations import time_range_text

from ..config.schema import METHOD_GUIDANCE, Config
from ..fields.dense_grids import is_compiled
from ..guidance.denoisers.base import square_size
from ..guidance.network_work import encoder_work, image_tower_work, network_work, views_together
from ..models.clip_files import CONFIG
from ..models.json_files import read_object
from ..models.local import resolve_model
from ..models.pipeline_folder import PipelineFolder, open_pipeline
from ..runtime.device_speed import DeviceSpeed, device_speed
from ..runtime.operation_count import Work
from .job import Job
from .step_work import NetworkCosts, Stage, diffusion_work, image_text_work, run_stages

FEWEST_STEPS = 20  # of a run for which the estimate is made: shorter ones show it by their own steps
FASTEST, SLOWEST = 0.6, 1.6  # of the time that the work takes at the measured speed
LEAST_RENDERED = 0.4  # share of the samples of a field that an occupancy grid leaves, where it helps most


@dataclass(frozen=True)
class TimeEstimate:
    """Seconds of the steps that are left, between two bounds, and what the estimate rests on."""

    low_s: float
    high_s: float
    steps: int
    step: Work  # of a step, on average
    speed: DeviceSpeed

    def __str__(self) -> str:
        flops, moved = self.step.flops / 1e9, self.step.moved / 1e9
        return (
            f"time: {time_range_text(self.low_s, self.high_s)} for {self.steps} steps, by {flops:.3g} GFLOP and "
            f"{moved:.2g} GB a step and this device's measured {self.speed}; the time left follows from the steps"
        )


def estimate_time(
    job: Job,
    folder: Path,
    dtype: torch.dtype,
    device: torch.device | str,
    done: int = 0,
    vertices: int = 0,
    processes: int = 1,
) -> TimeEstimate | None:
    """The time of a job's steps after the first `done`; None for fewer than FEWEST_STEPS.

    folder: of the model. vertices: of the mesh that is optimized. processes: that share a step's views. Left out are
    loading, compiling, moving an offloaded network, restarts, previews and the making of the mesh. Raises ModelError.
    """
    config = job.config
    if config.total_steps - done < FEWEST_STEPS:
        return None
    stages = remaining(job_stages(job, folder, dtype, device, vertices), done)
    return time_of(stages, config, device_speed(device, dtype), processes)


def job_stages(
    job: Job, folder: Path, dtype: torch.dtype, device: torch.device | str, vertices: int
) -> tuple[Stage, ...]:
    """The stages of a job with their work. Raises ModelError."""
    config, guidance_work = job.config, _guidance_work(job, folder, dtype)
    surface_work = guidance_work
    if job.has_surface_model:
        second = open_pipeline(resolve_model(config.surface.model))
        surface_work = _diffusion_work(network_costs(second, config.for_surface_model, dtype))
    compiled = is_compiled(config.render, config.field, device)
    return run_stages(config, job.scene, guidance_work, vertices, compiled, surface_work)


def _guidance_work(job: Job, folder: Path, dtype: torch.dtype) -> Callable[[Config, int], Work]:
    if METHOD_GUIDANCE[job.config.run.method] == "image-text" and not job.input_mesh:
        tower = image_tower_work(read_object(folder / CONFIG), dtype)
        return lambda config, views: image_text_work(tower, config, views)
    return _diffusion_work(network_costs(open_pipeline(folder), job.config, dtype))


def _diffusion_work(costs: NetworkCosts) -> Callable[[Config, int], Work]:
    return lambda config, views: diffusion_work(costs, config, views)


def network_costs(folder: PipelineFolder, config: Config, dtype: torch.dtype) -> NetworkCosts:
    """The work of a pipeline's networks at the image size that the settings choose. Raises ModelError."""
    size, encoder = square_size(folder), Work()
    if "vae" in folder.classes:
        vae = folder.config("vae")
        factor = 2 ** (len(vae.get("block_out_channels", (0,))) - 1)
        size = config.model.image_size // factor or size
        upcast = dtype == torch.float16 and vae.get("force_upcast", False)
        encoder = encoder_work(folder, size * factor, torch.float32 if upcast else dtype)
    return NetworkCosts(network_work(folder, size, dtype), views_together(folder), encoder)


def remaining(stages: Sequence[Stage], done: int) -> tuple[Stage, ...]:
    """The stages after `done` steps."""
    left = []
    for stage in stages:
        passed = min(done, stage.steps)
        done -= passed
        if stage.steps > passed:
            left.append(Stage(stage.steps - passed, stage.guidance, stage.rendering))
    return tuple(left)


def time_of(stages: Sequence[Stage], config: Config, speed: DeviceSpeed, processes: int = 1) -> TimeEstimate:
    """The time of these stages at this speed. Rendering takes less where an occupancy grid masks samples."""
    least = LEAST_RENDERED if config.render.occupancy_resolution else 1.0
    steps = sum(stage.steps for stage in stages)
    total, low, high = Work(), 0.0, 0.0
    for stage in stages:
        guidance, rendering = (work.larger(1 / processes) for work in (stage.guidance, stage.rendering))
        guided, rendered = speed.seconds(guidance), speed.seconds(rendering)
        low += stage.steps * FASTEST * (guided + least * rendered)
        high += stage.steps * SLOWEST * (guided + rendered)
        total += (guidance + rendering).times(stage.steps / steps)
    return TimeEstimate(low, high, steps, total, speed)
