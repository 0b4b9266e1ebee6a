# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules as pure functions of progress, the share of the run's steps that are done, in [0, 1]."""

from __future__ import annotations

import math

from .schema import Config, GuidanceConfig, RenderConfig


def linear(start: float, end: float, share: float, progress: float, begin: float = 0.0) -> float:
    """`start` until `begin`, then linearly to `end`, which is reached `share` later and kept.

    A share of 0 switches to `end` at `begin`.
    """
    if share <= 0:
        return end if progress >= begin else start
    return start + (end - start) * min(1.0, max(0.0, (progress - begin) / share))


def exponential(start: float, end: float, share: float, progress: float) -> float:
    """From `start` > 0 at 0 to `end` > 0 at `share`, linear in the logarithm, constant afterwards.

    A share of 0 is `end` throughout.
    """
    return math.exp(linear(math.log(start), math.log(end), share, progress))


def warmup_cosine(start: float, peak: float, final: float, warmup_share: float, progress: float) -> float:
    """Linear warm-up from `start` to `peak` over `warmup_share`, then half a cosine down to `final` at 1."""
    if progress < warmup_share:
        return linear(start, peak, warmup_share, progress)
    rest = (progress - warmup_share) / max(1e-12, 1 - warmup_share)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))


def time_range(config: GuidanceConfig, progress: float) -> tuple[float, float]:
    """Lowest and highest diffusion time of a step: `t_min` and `t_max`, which go to `t_min_end` and `t_max_end`."""
    ends = (config.t_min, lowest_end(config)), (config.t_max, config.t_max_end)
    low, high = (linear(*end, config.t_anneal_share, progress, config.t_anneal_begin) for end in ends)
    return low, high


def lowest_end(config: GuidanceConfig) -> float:
    """The lowest diffusion time once annealed: `t_min_end`, where 0 means `t_min`."""
    return config.t_min_end or config.t_min


def view_resolution(config: RenderConfig, progress: float) -> int:
    """Pixels a side of a training view: `coarse_resolution` until `coarse_share`, where smaller, then `resolution`."""
    return config.coarse_resolution if _is_coarse(config, progress) else config.resolution


def views_per_step(config: Config, progress: float) -> int:
    """Views of a step of a field: `render.coarse_views` as long as their resolution is coarse."""
    render = config.render
    return render.coarse_views if render.coarse_views and _is_coarse(render, progress) else config.run.views_per_step


def _is_coarse(config: RenderConfig, progress: float) -> bool:
    return 0 < config.coarse_resolution < config.resolution and progress < config.coarse_share
