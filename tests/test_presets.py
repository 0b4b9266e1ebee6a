# SPDX-License-Identifier: GPL-3.0-or-later
"""The `paper` preset against DreamFusion's numbers, row by row (section 3 and appendix A.2)."""

from __future__ import annotations

import math

import pytest

from dreamwright.backend.errors import ConfigError
from dreamwright.backend.optimizers import learning_rate
from dreamwright.backend.presets import PRESETS, get_preset
from dreamwright.backend.schedules import linear
from dreamwright.backend.settings import BOUNDS, apply_settings, config_from_mapping, config_to_mapping, setting_names, validate

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
    "density bias stays": (PAPER.field.density_bias_fade_share, 0.0),
    "ambient only for 1k steps": (round(PAPER.shading.albedo_only_share * STEPS), 1000),
    "shaded with p .75": (PAPER.shading.shaded_probability, 0.75),
    "l_a .1, l_rho .9": ((PAPER.shading.ambient, PAPER.shading.ambient_max, PAPER.shading.diffuse), (0.1, 0.1, 0.9)),
    "textureless with p .5": (PAPER.shading.textureless_probability, 0.5),
    "bounding sphere 1.4": (PAPER.field.bounding_radius, 1.4),
    "background is an MLP, never random": ((PAPER.background.kind, PAPER.background.random_probability), ("mlp", 0.0)),
    "elevation -10..90": ((PAPER.camera.elevation_min, PAPER.camera.elevation_max), (-10.0, 90.0)),
    "elevation mixture .5": (PAPER.camera.uniform_angle_share, 0.5),
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
        (PAPER.guidance.view_dependent, PAPER.guidance.sided_views, PAPER.guidance.textureless_words),
        (True, False, ""),
    ),
    "w = sigma^2": (PAPER.guidance.weighting, "sigma2"),
    "t ~ U(.02, .98) throughout": (
        (PAPER.guidance.t_min, PAPER.guidance.t_max, PAPER.guidance.t_max_end),
        (0.02, 0.98, 0.98),
    ),
    "omega 100": (PAPER.guidance.omega, 100.0),
    "orientation 1e-4 to 1e-2 over 5k": (
        [linear(PAPER.regularisers.orientation_start, PAPER.regularisers.orientation_end, PAPER.regularisers.orientation_share, s / STEPS) for s in (0, 5000, STEPS)],
        pytest.approx([1e-4, 1e-2, 1e-2]),
    ),
    "opacity within 1e-3..5e-3": (1e-3 <= PAPER.regularisers.opacity_end <= 5e-3, True),
    "no other regulariser": ((PAPER.regularisers.entropy_end, PAPER.regularisers.smoothness), (0.0, 0.0)),
    "Shampoo": (PAPER.optimizer.kind, "shampoo"),
    "beta .9 .9": ((PAPER.optimizer.beta1, PAPER.optimizer.beta2), (0.9, 0.9)),
    "exponent 2, block 128, epsilon 1e-6": (
        (PAPER.optimizer.exponent_override, PAPER.optimizer.block_size, PAPER.optimizer.epsilon),
        (2, 128, 1e-6),
    ),
    "15k steps of 4 views": ((PAPER.run.steps, PAPER.run.views_per_step), (STEPS, 4)),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_paper_preset_has_the_papers_number(row: str) -> None:
    value, expected = ROWS[row]
    assert value == expected


def test_the_papers_learning_rate_warms_up_over_3000_steps_and_decays_by_a_cosine() -> None:
    rates = [learning_rate(PAPER.optimizer, step / STEPS) for step in (0, 1500, 3000, 9000, 15000)]
    middle = 1e-6 + (1e-4 - 1e-6) * 0.5 * (1 + math.cos(math.pi / 2))
    assert rates == pytest.approx([1e-9, (1e-4 + 1e-9) / 2, 1e-4, middle, 1e-6])


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_survives_json(name: str) -> None:
    config = validate(PRESETS[name].config)
    assert config_from_mapping(config_to_mapping(config)) == config


def test_every_number_of_the_configuration_has_bounds() -> None:
    config = config_to_mapping(PAPER)
    numbers = {
        name for name in setting_names()
        if isinstance(config[name.split(".")[0]][name.split(".")[1]], (int, float, list))
        and not isinstance(config[name.split(".")[0]][name.split(".")[1]], bool)
    }  # fmt: skip
    assert numbers == set(BOUNDS)


def test_settings_are_typed() -> None:
    config = apply_settings(PAPER, ["run.steps=20", "guidance.omega=7.5", "field.voxel_resolutions=8,16", "guidance.sided_views=true", "optimizer.kind=adam"])
    assert (config.run.steps, config.guidance.omega, config.field.voxel_resolutions) == (20, 7.5, (8, 16))
    assert (config.guidance.sided_views, config.optimizer.kind) == (True, "adam")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("run.steps=-3", ("run.steps", "-3", "1 to")),
        ("run.steps=2.5", ("2.5", "whole number")),
        ("run.stesp=3", ("run.stesp", "run.steps")),
        ("nonsense=3", ("nonsense",)),
        ("run.steps", ("=",)),
        ("guidance.omega=nan", ("guidance.omega", "nan")),
        ("guidance.omega=1e308", ("guidance.omega", "1000")),
        ("guidance.t_min=0.99", ("guidance.t_min", "guidance.t_max")),
        ("field.kind=hash", ("hash", "mip-mlp", "voxels")),
        ("guidance.sided_views=maybe", ("maybe", "true")),
        ("field.voxel_resolutions=", ("voxel_resolutions",)),
    ],
)
def test_a_bad_setting_is_answered_with_what_was_given_and_what_is_allowed(setting: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_settings(PAPER, [setting])
    message = str(caught.value)
    assert all(word in message for word in words) and "\n" not in message


def test_an_unknown_preset_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="draft, standard, paper"):
        get_preset("ultra")
