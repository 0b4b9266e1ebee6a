# SPDX-License-Identifier: GPL-3.0-or-later
"""The `paper` preset against DreamFusion's numbers, row by row (section 3 and appendix A.2)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from dreamwright.backend.config.parsing import config_from_mapping, config_to_mapping, validate
from dreamwright.backend.config.presets import PRESETS, get_preset
from dreamwright.backend.config.schedules import linear
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.fields import build_field
from dreamwright.backend.optimizers.factory import build_optimizer, learning_rate, set_learning_rate
from dreamwright.backend.optimizers.shampoo import Shampoo
from dreamwright.backend.rendering.shading import sample_shading

PAPER = PRESETS["paper"].config
STEPS = 15_000

ROWS = {
    "render 64x64": (PAPER.render.resolution, 64),
    "field is the mip MLP": (PAPER.field.kind, "mip-mlp"),
    "5 ResNet blocks of 128": ((PAPER.field.hidden_blocks, PAPER.field.hidden_width), (5, 128)),
    "exp density": (PAPER.field.density_activation, "exp"),
    "encoding L = 8": (PAPER.field.encoding_levels, 8),
    "covariance 5e-2 to 2e-3": ((PAPER.field.covariance_start, PAPER.field.covariance_end), (5e-2, 2e-3)),
    "covariance over 5k steps": (round(PAPER.field.covariance_share * STEPS), 5000),
    "density bias lambda 5, sigma .2, Gaussian": (
        (PAPER.field.density_bias_scale, PAPER.field.density_bias_width, PAPER.field.density_bias),
        (5.0, 0.2, "gaussian"),
    ),
    "density bias is added before the activation": (PAPER.field.density_bias_on, "raw"),
    "every sample counts in eq 5": (
        (PAPER.render.occupancy_resolution, PAPER.render.early_stop_transmittance, PAPER.render.smallest_weight),
        (0, 0.0, 0.0),
    ),
    "density bias stays": (PAPER.field.density_bias_fade_share, 0.0),
    "ambient only for 1k steps": (round(PAPER.shading.albedo_only_share * STEPS), 1000),
    "shaded with p .75": (PAPER.shading.shaded_probability, 0.75),
    "l_a .1, l_rho .9": ((PAPER.shading.ambient, PAPER.shading.ambient_max, PAPER.shading.diffuse), (0.1, 0.1, 0.9)),
    "textureless with p .5": (PAPER.shading.textureless_probability, 0.5),
    "bounding sphere 1.4": (PAPER.field.bounding_radius, 1.4),
    "background is an MLP, never random": ((PAPER.background.kind, PAPER.background.random_probability), ("mlp", 0.0)),
    "elevation -10..90": ((PAPER.camera.elevation_min, PAPER.camera.elevation_max), (-10.0, 90.0)),
    "elevation mixture .5": (PAPER.camera.uniform_angle_share, 0.5),
    "uniform in area on the half-sphere": (PAPER.camera.area_elevation_min, 0.0),
    "distance 1..1.5": ((PAPER.camera.distance_min, PAPER.camera.distance_max), (1.0, 1.5)),
    "focal U(.7, 1.35)": ((PAPER.camera.framing, PAPER.camera.focal_min, PAPER.camera.focal_max), ("focal", 0.7, 1.35)),
    "look-at N(0, .2 I)": (PAPER.camera.look_at_std**2, pytest.approx(0.2)),
    "up N(0, .02 I)": (PAPER.camera.up_std**2, pytest.approx(0.02)),
    "position offset U(-.1, .1)": (PAPER.camera.position_offset, 0.1),
    "light direction N(p, I), norm U(.8, 1.5)": (
        (PAPER.light.direction_std, PAPER.light.distance_min, PAPER.light.distance_max),
        (1.0, 0.8, 1.5),
    ),
    "overhead above 60 degrees": (PAPER.guidance.overhead_elevation, 60.0),
    "view-dependent prompts without extra words": (
        (PAPER.guidance.view_dependent, PAPER.guidance.view_words, PAPER.guidance.textureless_words),
        (True, "four", ""),
    ),
    "w = sigma^2": (PAPER.guidance.weighting, "sigma2"),
    "t ~ U(.02, .98) throughout": (
        (PAPER.guidance.t_min, PAPER.guidance.t_max, PAPER.guidance.t_max_end),
        (0.02, 0.98, 0.98),
    ),
    "omega 100": (PAPER.guidance.omega, 100.0),
    "orientation 1e-4 to 1e-2 over 5k": (
        [
            linear(
                PAPER.regularizers.orientation_start,
                PAPER.regularizers.orientation_end,
                PAPER.regularizers.orientation_share,
                s / STEPS,
            )
            for s in (0, 5000, STEPS)
        ],
        pytest.approx([1e-4, 1e-2, 1e-2]),
    ),
    "opacity within 1e-3..5e-3": (1e-3 <= PAPER.regularizers.opacity_end <= 5e-3, True),
    "no other regularizer": ((PAPER.regularizers.entropy_end, PAPER.regularizers.smoothness), (0.0, 0.0)),
    "Shampoo": (PAPER.optimizer.kind, "shampoo"),
    "beta .9 .9": ((PAPER.optimizer.beta1, PAPER.optimizer.beta2), (0.9, 0.9)),
    "exponent 2, block 128, epsilon 1e-6": (
        (PAPER.optimizer.exponent_override, PAPER.optimizer.block_size, PAPER.optimizer.epsilon),
        (2, 128, 1e-6),
    ),
    "15k steps of 4 views": ((PAPER.run.steps, PAPER.run.views_per_step), (STEPS, 4)),
}


@pytest.mark.parametrize("row", ROWS)
def test_paper_row(row: str) -> None:
    value, expected = ROWS[row]
    assert value == expected


def test_paper_learning_rate_schedule() -> None:
    rates = [learning_rate(PAPER.optimizer, step / STEPS) for step in (0, 1500, 3000, 9000, 15000)]
    middle = 1e-6 + (1e-4 - 1e-6) * 0.5 * (1 + math.cos(math.pi / 2))
    assert rates == pytest.approx([1e-9, (1e-4 + 1e-9) / 2, 1e-4, middle, 1e-6])


def test_paper_covariance_schedule() -> None:
    field = build_field(replace(PAPER.field, hidden_width=8, hidden_blocks=1), torch.Generator().manual_seed(0))
    scales = []
    for step in (0, 2500, 5000, 15000):
        field.begin_step(step / STEPS)
        scales.append(field.covariance_scale)
    assert scales == pytest.approx([5e-2, (5e-2 + 2e-3) / 2, 2e-3, 2e-3])


def test_paper_shading_mixture(generator: torch.Generator) -> None:
    """Afterwards .25 albedo, .375 shaded, .375 textureless; four standard errors of 4000 draws are at most
    4 sqrt(.234 / 4000) = .031.
    """
    for step in (0, 500, 999):
        looks = [sample_shading(PAPER.shading, step / STEPS, generator) for _ in range(50)]
        assert {(s.kind, s.ambient, s.diffuse) for s in looks} == {("albedo", 1.0, 0.0)}
    kinds = [sample_shading(PAPER.shading, 1000 / STEPS, generator) for _ in range(4000)]
    for kind, share in (("albedo", 0.25), ("shaded", 0.375), ("textureless", 0.375)):
        assert sum(s.kind == kind for s in kinds) / 4000 == pytest.approx(share, abs=0.031)
    assert {(s.ambient, s.diffuse) for s in kinds if s.kind != "albedo"} == {(0.1, 0.9)}


def test_paper_optimizer() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = build_optimizer(PAPER.optimizer, [{"params": [parameter], "rate_multiplier": 1.0}])
    assert isinstance(optimizer, Shampoo)
    group = optimizer.param_groups[0]
    assert (group["betas"], group["epsilon"], group["block_size"], group["exponent_override"]) == (
        (0.9, 0.9),
        1e-6,
        128,
        2,
    )
    set_learning_rate(optimizer, learning_rate(PAPER.optimizer, 3000 / STEPS))
    assert group["lr"] == pytest.approx(1e-4)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_valid_and_survives_json(name: str) -> None:
    config = validate(PRESETS[name].config)
    assert config_from_mapping(config_to_mapping(config)) == config


def test_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="draft, standard, fine, paper"):
        get_preset("ultra")
