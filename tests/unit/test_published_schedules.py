# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules of published recipes, at steps whose values are computed by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.schedules import linear, time_range, view_resolution, views_per_step
from dreamwright.backend.config.schema import Config, GuidanceConfig, RegularizerConfig
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.runtime.distributed import TorchProcessGroup
from dreamwright.backend.scenes.derived_config import guidance_for, surface_guidance
from dreamwright.backend.scenes.field_losses import (
    entropy_weight,
    field_penalties,
    opacity_weight,
    orientation_weight,
)

# MVDream (mvdream-sd21.yaml): min_step_percent [0, 0.98, 0.02, 8000], max_step_percent [0, 0.98, 0.5, 8000] of 10,000.
MVDREAM = GuidanceConfig(t_min=0.98, t_min_end=0.02, t_max=0.98, t_max_end=0.5, t_anneal_share=0.8)
# ProlificDreamer (prolificdreamer.yaml): max_step_percent [5000, 0.98, 0.5, 5001] of 25,000.
PROLIFIC = GuidanceConfig(t_max_end=0.5, t_anneal_begin=0.2, t_anneal_share=0.0)
MVDREAM_VIEWS = (
    "render.resolution=256",
    "render.coarse_resolution=64",
    "render.coarse_share=0.5",
    "render.coarse_views=8",
    "run.views_per_step=4",
)
PROLIFIC_VIEWS = (
    "render.resolution=512",
    "render.coarse_resolution=64",
    "render.coarse_share=0.2",
    "run.views_per_step=1",
)
# SDI (sdi.yaml): t_anneal, from max_step_percent 0.98 to min_step_percent 0.25, one time for all views.
SDI = GuidanceConfig(t_min=0.98, t_min_end=0.25, t_max=0.98, t_max_end=0.25)
# stable-zero123.yaml begins late and is not at once: [50, 0.7, 0.3, 200] and [50, 0.98, 0.8, 200] of 600.
LATE = GuidanceConfig(
    t_min=0.7, t_min_end=0.3, t_max=0.98, t_max_end=0.8, t_anneal_begin=50 / 600, t_anneal_share=150 / 600
)


@pytest.mark.parametrize(
    ("config", "step", "steps", "low", "high"),
    [
        (MVDREAM, 0, 10_000, 0.98, 0.98),
        (MVDREAM, 2_000, 10_000, 0.74, 0.86),
        (MVDREAM, 4_000, 10_000, 0.5, 0.74),
        (MVDREAM, 8_000, 10_000, 0.02, 0.5),
        (MVDREAM, 9_999, 10_000, 0.02, 0.5),
        (PROLIFIC, 4_999, 25_000, 0.02, 0.98),
        (PROLIFIC, 5_000, 25_000, 0.02, 0.5),
        (PROLIFIC, 24_999, 25_000, 0.02, 0.5),
        (SDI, 0, 10_000, 0.98, 0.98),
        (SDI, 5_000, 10_000, 0.615, 0.615),
        (LATE, 49, 600, 0.7, 0.98),
        (LATE, 125, 600, 0.5, 0.89),
        (LATE, 200, 600, 0.3, 0.8),
        (GuidanceConfig(t_min=0.4, t_max_end=0.75), 125, 250, 0.4, 0.865),  # draft's: t_min stays, over the whole run
    ],
)
def test_times_of_published_recipes(config: GuidanceConfig, step: int, steps: int, low: float, high: float) -> None:
    # Float64 numbers below 1 with a few roundings of 1e-16.
    assert time_range(config, step / steps) == pytest.approx((low, high), abs=1e-14)
    guidance = ScoreDistillation(SimpleNamespace(), config)  # type: ignore[arg-type]  # times need no denoiser
    drawn = guidance.times(500, torch.Generator().manual_seed(step), step / steps)
    # Float32 rounds times by 6e-8; 500 draws leave a tenth of the range empty with a probability of 0.9^500.
    assert low - 1e-6 <= float(drawn.min()) <= low + 0.1 * (high - low) + 1e-6
    assert high + 1e-6 >= float(drawn.max()) >= high - 0.1 * (high - low) - 1e-6


@pytest.mark.parametrize(
    ("settings", "step", "steps", "size", "views"),
    [
        # MVDream: width [64, 256], batch_size [8, 4], resolution_milestones [5000] of 10,000.
        (MVDREAM_VIEWS, 0, 10_000, 64, 8),
        (MVDREAM_VIEWS, 4_999, 10_000, 64, 8),
        (MVDREAM_VIEWS, 5_000, 10_000, 256, 4),
        (MVDREAM_VIEWS, 9_999, 10_000, 256, 4),
        # ProlificDreamer: width [64, 512], batch_size [1, 1], resolution_milestones [5000] of 25,000.
        (PROLIFIC_VIEWS, 4_999, 25_000, 64, 1),
        (PROLIFIC_VIEWS, 5_000, 25_000, 512, 1),
        # Not smaller than the resolution: no early one, and so no views of its own.
        (("render.resolution=64", "render.coarse_resolution=64", "render.coarse_views=8"), 0, 10, 64, 4),
        ((), 0, 15_000, 64, 4),
    ],
)
def test_views_of_published_recipes(settings: tuple[str, ...], step: int, steps: int, size: int, views: int) -> None:
    config = apply_settings(Config(), settings)
    assert view_resolution(config.render, step / steps) == size
    assert views_per_step(config, step / steps) == views


def test_coarse_views_are_whole_sets() -> None:
    with pytest.raises(ConfigError, match=r"render.coarse_views is 6 and camera.views_per_set is 4; .*coarse_views=8"):
        apply_settings(Config(), ["camera.views_per_set=4", "render.coarse_views=6"])


def test_coarse_views_divide_among_ranks() -> None:
    group = object.__new__(TorchProcessGroup)  # without a network
    group.rank, group.world_size = 1, 2
    assert group.local_views(8, "render.coarse_views") == slice(4, 8)
    with pytest.raises(ConfigError, match=r"render.coarse_views is 3; allowed with 2 ranks .*render.coarse_views=4"):
        group.local_views(3, "render.coarse_views")


def test_defaults_anneal_as_before_to_the_bit() -> None:
    config = GuidanceConfig(t_min=0.4, t_max_end=0.75)
    for step in range(251):
        share = step / 250
        assert time_range(config, share) == (0.4, 0.98 + (0.75 - 0.98) * share)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["guidance.t_min_end=0.6", "guidance.t_max_end=0.5"], ("t_min_end is 0.6", "t_max_end is 0.5")),
        (["guidance.t_min_end=2"], ("guidance.t_min_end is 2", "or 0 for guidance.t_min throughout")),
        (["guidance.t_anneal_share=-1"], ("guidance.t_anneal_share is -1", "0 to 1")),
    ],
)
def test_impossible_times_are_refused_by_name(settings: list[str], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_settings(Config(), settings)
    assert all(word in str(caught.value) for word in words)


def test_impossible_times_of_other_settings_are_refused() -> None:
    for config in (
        dataclasses.replace(MVDREAM, t_min_end=0.0),  # t_min throughout: 0.98 above t_max_end
        dataclasses.replace(MVDREAM, t_max=0.9),
    ):
        with pytest.raises(ConfigError, match=r"t_min 0\.98 .*allowed is 0 <= t_min <= t_max <= 1 at both"):
            ScoreDistillation(SimpleNamespace(), config)  # type: ignore[arg-type]


def test_later_stages_begin_where_the_times_ended() -> None:
    config = dataclasses.replace(Config(), guidance=MVDREAM)
    surface = surface_guidance(config)
    assert time_range(surface, 0.0) == (0.02, config.surface.t_max)
    assert time_range(surface, 1.0) == (0.02, config.surface.t_max_end)
    # Half of the way from the lowest time, at the start and at the end: 0.98 stays, 0.02 + 0.48 / 2.
    mild = guidance_for(MVDREAM, 0.0)
    assert (mild.t_max, mild.t_max_end) == pytest.approx((0.98, 0.26), abs=1e-14)


@pytest.mark.parametrize(
    ("progress", "value"), [(0.0, 2.0), (0.25, 2.0), (0.375, 3.5), (0.5, 5.0), (0.75, 8.0), (1.0, 8.0)]
)
def test_linear_from_a_quarter_over_a_half(progress: float, value: float) -> None:
    assert linear(2.0, 8.0, 0.5, progress, begin=0.25) == value  # binary fractions: exact


def test_linear_without_length_is_a_switch() -> None:
    assert [linear(2.0, 8.0, 0.0, progress, begin=0.25) for progress in (0.0, 0.2499, 0.25, 1.0)] == [2, 2, 8, 8]
    assert linear(2.0, 8.0, 0.0, 0.0) == 8.0


# lambda_orient [0, 10, 1000, 5000] of 10,000 (dreamfusion-if.yaml, dreamfusion-sd.yaml, magic3d-coarse-*.yaml).
ORIENT = RegularizerConfig(orientation_start=10.0, orientation_end=1000.0, orientation_share=0.5)
# lambda_opaque [10000, 0, 1000, 10001] of 25,000 (prolificdreamer.yaml); the mean over rays of its lambda_sparsity, 10,
# is another part of their sum from step 5,000 on, where views grow from 64 to 512 pixels.
OPAQUE = RegularizerConfig(
    opacity_start=10 / 64**2,
    opacity_end=10 / 512**2,
    opacity_begin=0.2,
    opacity_share=0.0,
    entropy_end=1000.0,
    entropy_begin=0.4,
    entropy_share=0.0,
)
# lambda_sparsity [0, 0.15, 0, 3000] of 10,000 (sdi.yaml).
FADING = RegularizerConfig(opacity_start=0.15, opacity_end=0.0, opacity_share=0.3)
# stable-dreamfusion: lambda_entropy min(1, 2 step / iters).
GROWING = RegularizerConfig(entropy_end=1e-3, entropy_begin=0.0, entropy_share=0.5)


@pytest.mark.parametrize(
    ("weight", "config", "step", "steps", "expected"),
    [
        (orientation_weight, ORIENT, 0, 10_000, 10.0),
        (orientation_weight, ORIENT, 2_500, 10_000, 505.0),
        (orientation_weight, ORIENT, 5_000, 10_000, 1000.0),
        (orientation_weight, ORIENT, 9_999, 10_000, 1000.0),
        (opacity_weight, OPAQUE, 4_999, 25_000, 10 / 4_096),
        (opacity_weight, OPAQUE, 5_000, 25_000, 10 / 262_144),
        (entropy_weight, OPAQUE, 9_999, 25_000, 0.0),
        (entropy_weight, OPAQUE, 10_000, 25_000, 1000.0),
        (opacity_weight, FADING, 1_000, 10_000, 0.1),
        (opacity_weight, FADING, 3_000, 10_000, 0.0),
        (entropy_weight, GROWING, 2_500, 10_000, 5e-4),
        (entropy_weight, GROWING, 7_500, 10_000, 1e-3),
    ],
)
def test_weights_of_published_recipes(
    weight: Callable[[RegularizerConfig, float], float],
    config: RegularizerConfig,
    step: int,
    steps: int,
    expected: float,
) -> None:
    # Float64: a few roundings of 1e-16 of the ends, which are at most 1,000.
    assert weight(config, step / steps) == pytest.approx(expected, rel=1e-13, abs=1e-13)


def test_default_weights_are_as_before_to_the_bit() -> None:
    config = RegularizerConfig(entropy_end=0.12, opacity_start=0.008, opacity_end=0.002, opacity_share=0.6)
    for step in range(251):
        progress = step / 250
        assert entropy_weight(config, progress) == 0.12 * max(0.0, 2 * progress - 1)
        assert opacity_weight(config, progress) == 0.008 + (0.002 - 0.008) * min(1.0, progress / 0.6)


def test_penalties_have_the_weights_of_their_schedules() -> None:
    """Rays of opacity 1/2 and 1, one view of two pixels: sqrt(o^2 + .01) and the entropy, by hand."""
    rendering = SimpleNamespace(
        image=torch.zeros(1, 3, 1, 2),
        opacity=torch.tensor([0.5, 1.0], dtype=torch.float64).view(1, 1, 1, 2),
        orientation=torch.zeros(1, dtype=torch.float64),
    )
    config = dataclasses.replace(OPAQUE, opacity_start=3.0, opacity_end=7.0, orientation_start=0.0, orientation_end=0.0)
    opacity = math.sqrt(0.26) + math.sqrt(1.01)
    clear = 1e-4  # where the entropy's opacity is cut off
    entropy = math.log(2) - clear * math.log(clear) - (1 - clear) * math.log(1 - clear)
    for progress, expected in ((0.1, 3 * opacity), (0.3, 7 * opacity), (0.5, 7 * opacity + 1000 * entropy)):
        got = field_penalties(config, rendering, SimpleNamespace(), progress)  # type: ignore[arg-type]
        # Float64, but for the clamp's 1 - 1e-4: sums of 1,000 with a few roundings of 1e-13.
        assert float(got) == pytest.approx(expected, rel=1e-12)
