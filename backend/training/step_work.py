# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of a run by stage, from its settings and its model's description: the guidance's, and that of rendering."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..config.schedules import lowest_end, time_range
from ..config.schema import Config, GuidanceConfig
from ..config.setting import SceneKind
from ..rendering.render_work import field_work, mesh_work
from ..runtime.operation_count import Work
from ..scenes.derived_config import surface_config

GRADED = 3  # what a network's pass with a graph and its gradient move, in forward passes; its products take 2 of them


@dataclass(frozen=True)
class Stage:
    """Steps that take equally long: the work of the guidance in one step, and of all else."""

    steps: int
    guidance: Work
    rendering: Work


@dataclass(frozen=True)
class NetworkCosts:
    """The work of a diffusion model.

    forward: one pass on a set of `together` views. encoder: images to latents with their gradient, a view.
    """

    forward: Work
    together: int = 1
    encoder: Work = Work()


def run_stages(
    config: Config,
    scene: SceneKind,
    guidance_work: Callable[[Config, int], Work],
    vertices: int = 0,
    compiled: bool = False,
    surface_work: Callable[[Config, int], Work] | None = None,
) -> tuple[Stage, ...]:
    """The stages of a run: coarse and full views of a field, then its mesh; or the one stage of a mesh.

    guidance_work: of the settings of a stage and its views a step. vertices: of a mesh that is given. compiled: as in
    `field_work`. surface_work: as guidance_work, of a field's mesh where another model guides it.
    """
    run, render = config.run, config.render
    if scene != "field":
        work = mesh_work(vertices, run.views_per_step, render.resolution, config.refine.supersampling)
        return (Stage(run.steps, guidance_work(config, run.views_per_step), work),)
    coarse = round(run.steps * render.coarse_share) if 0 < render.coarse_resolution < render.resolution else 0
    stages = []
    if coarse:
        views = render.coarse_views or run.views_per_step
        stages.append(_field_stage(config, coarse, views, render.coarse_resolution, guidance_work, compiled))
    if run.steps > coarse:
        stages.append(
            _field_stage(config, run.steps - coarse, run.views_per_step, render.resolution, guidance_work, compiled)
        )
    if config.surface.steps:
        later = surface_config(config)
        size, samples = later.render.resolution, later.refine.supersampling
        work = mesh_work(config.mesh.triangles // 2, run.views_per_step, size, samples)
        stages.append(Stage(config.surface.steps, (surface_work or guidance_work)(later, run.views_per_step), work))
    return tuple(stages)


def _field_stage(
    config: Config,
    steps: int,
    views: int,
    resolution: int,
    guidance_work: Callable[[Config, int], Work],
    compiled: bool,
) -> Stage:
    share = lit_share(config, views)
    plain, with_normals = (field_work(config, views, resolution, lit, compiled) for lit in (False, True))
    return Stage(steps, guidance_work(config, views), plain.times(1 - share) + with_normals.times(share))


def lit_share(config: Config, views: int) -> float:
    """Share of a field's steps with normals: those with a lit view among the step's sets, or with eq 10."""
    regularizers, shading = config.regularizers, config.shading
    if regularizers.orientation_start > 0 or regularizers.orientation_end > 0:
        return 1.0
    looks = max(1, views // config.camera.views_per_set)
    return (1 - shading.albedo_only_share) * (1 - (1 - shading.shaded_probability) ** looks)


def diffusion_work(costs: NetworkCosts, config: Config, views: int) -> Work:
    """A step's guidance by a diffusion model: the encoder once a view, and the calls of its rule of distillation."""
    guidance = config.guidance
    sets = views / costs.together
    rows = sets * guidance.noises * guidance.rows_per_draw
    work = costs.forward.larger(rows) + costs.encoder.larger(views)
    if config.model.vae_recompute:
        work += Work(costs.encoder.flops / 2, costs.encoder.moved / 2).larger(views)
    if guidance.rule == "sdi":
        work += costs.forward.larger(rows).times(guidance.inversion_steps * _mean_time(guidance))
    if guidance.rule == "vsd":
        passes = (2 + guidance.lora_recompute, GRADED + guidance.lora_recompute, GRADED)
        learned = Work(*(a * b for a, b in zip(passes, _numbers(costs.forward), strict=True)))
        work += costs.forward.larger(sets * guidance.noises) + learned.larger(sets)
    chunks = max(1, -(-views // max(config.run.views_at_once or views, config.camera.views_per_set)))
    return Work(work.flops, work.moved, work.calls * chunks)


def image_text_work(tower: Work, config: Config, views: int) -> Work:
    """A step's guidance by CLIP: its image tower on every crop of a view."""
    return tower.larger(views * config.clip.crops)


def _numbers(work: Work) -> tuple[float, float, float]:
    return work.flops, work.moved, work.calls


def _mean_time(guidance: GuidanceConfig) -> float:
    """Mean diffusion time over the run: of the range's ends at the start and at the end."""
    low, high = time_range(guidance, 0.0)
    return (low + high + lowest_end(guidance) + guidance.t_max_end) / 4
