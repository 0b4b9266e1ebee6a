# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes of published models: their numbers typed a second time, each with its source, and the choice by family."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import pytest

from dreamwright.backend.config.parsing import validate
from dreamwright.backend.config.presets import PAPER, PRESETS, QUALITIES, RECIPES, get_preset, method_of, preset_config
from dreamwright.backend.config.recipes.recipe import Recipe, published_recipe
from dreamwright.backend.config.recipes.starter import REFINE
from dreamwright.backend.config.recipes.threestudio import rows, threestudio
from dreamwright.backend.config.schema import Config
from dreamwright.backend.config.setting import setting_fields
from dreamwright.backend.config.usage import check_settings_used, setting_value
from dreamwright.backend.errors import ConfigError
from tools.docs.recipe_page import PAGE, recipes_page

PUBLISHED = [
    recipe
    for family, recipes in RECIPES.items()
    if family not in ("starter", "clip")
    for recipe in recipes.values()
    if recipe.config is not PAPER
]

HASH_GRID = {  # in all configurations: pos_encoding_config, density_*, num_samples_per_ray 512 / 1.732
    "field.kind": "hash-grid", "field.hash_levels": 16, "field.hash_features": 2, "field.hash_log2_size": 19,
    "field.hash_base_resolution": 16, "field.hash_growth": 1.447269237440378, "field.hash_hidden_width": 64,
    "field.hash_hidden_layers": 1, "field.density_activation": "softplus", "field.density_bias": "linear",
    "field.density_bias_scale": 10, "field.density_bias_on": "raw", "field.density_bias_fade_share": 0,
    "render.samples": 296, "render.occupancy_resolution": 32, "render.occupancy_interval": 16,
    "background.kind": "mlp", "background.hidden_width": 16, "guidance.opposite_weight": 0,
}  # fmt: skip
ADAM = {  # optimizer
    "optimizer.kind": "adam", "optimizer.learning_rate": 0.01, "optimizer.final_rate": 0.01,
    "optimizer.warmup_share": 0, "optimizer.beta1": 0.9, "optimizer.beta2": 0.99, "optimizer.epsilon": 1e-15,
    "optimizer.background_rate_multiplier": 0.1, "optimizer.weight_decay": 0, "optimizer.network_rate_multiplier": 1,
}  # fmt: skip
PERTURBED = {"camera.look_at_std": 0.2, "camera.up_std": 0.02, "camera.position_offset": 0.1}
STEADY = {"camera.look_at_std": 0, "camera.up_std": 0, "camera.position_offset": 0}
AROUND = {"camera.area_elevation_min": -10, "camera.stratified_azimuth": True}
FOV = {"camera.focal_min": 0.714074, "camera.focal_max": 1.373739}  # 0.5 / tan(35), 0.5 / tan(20) degrees
DREAMFUSION = HASH_GRID | ADAM | PERTURBED | FOV | {
    "run.views_per_step": 1, "render.resolution": 64, "render.coarse_resolution": 0,
    "camera.elevation_min": -10, "camera.area_elevation_min": -10, "camera.distance_min": 1.5,
    "camera.distance_max": 2.0, "camera.stratified_azimuth": True, "camera.uniform_angle_share": 0.5,
    "field.bounding_radius": 2, "field.density_bias_width": 0.5, "field.density_scale": 1, "field.normals": "analytic",
    "background.random_probability": 0, "shading.shaded_probability": 0.75, "shading.textureless_probability": 0.5,
    "shading.ambient": 0.1, "shading.ambient_max": 0.1, "shading.diffuse": 0.9,
    "light.direction_std": 1, "light.distance_min": 0.8, "light.distance_max": 1.5,
    "guidance.rule": "sds", "guidance.weighting": "sigma2", "guidance.t_min": 0.02, "guidance.t_max": 0.98,
    "guidance.t_max_end": 0.98, "guidance.rescale": 0, "guidance.negative_prompt": "", "guidance.view_words": "four",
    "guidance.side_azimuth": 45, "guidance.overhead_elevation": 60, "guidance.textureless_words": "",
    "regularizers.orientation_start": 10 / 4096, "regularizers.orientation_end": 1000 / 4096,
    "regularizers.opacity_start": 1 / 4096, "regularizers.opacity_end": 1 / 4096, "regularizers.entropy_end": 0,
}  # fmt: skip
LONG = {  # 10,000 steps: start_level 8, start_step 2000, update_steps 500, ambient_only_steps 2001, 5000 of orientation
    "run.steps": 10000, "field.hash_start_level": 8, "field.hash_start_share": 0.2, "field.hash_level_interval": 0.05,
    "shading.albedo_only_share": 0.2001, "regularizers.orientation_share": 0.5,
}  # fmt: skip
SHORT = {  # gradio: 5,000 steps, start_level 10, update_steps 400
    "run.steps": 5000, "field.hash_start_level": 10, "field.hash_start_share": 0.4, "field.hash_level_interval": 0.08,
    "shading.albedo_only_share": 0.4002, "regularizers.orientation_share": 1,
}  # fmt: skip
IF = {"guidance.omega": 20, "camera.elevation_max": 90}  # noise_pred_text + 20 (noise_pred_text - noise_pred_uncond)
SD = {"guidance.omega": 100, "camera.elevation_max": 45}
XL = {  # width 128, so that means are over 16,384 pixels
    "render.resolution": 128, "regularizers.orientation_start": 10 / 16384,
    "regularizers.orientation_end": 1000 / 16384, "regularizers.opacity_start": 1 / 16384,
    "regularizers.opacity_end": 1 / 16384,
}  # fmt: skip
ADAMW = ADAM | {  # three lr of 0.001 beside the encoding's 0.01, and torch's default decay
    "optimizer.weight_decay": 0.01, "optimizer.network_rate_multiplier": 0.1, "optimizer.color_rate_multiplier": 0.1,
}  # fmt: skip
UNLIT = {  # no-material, random_aug
    "shading.albedo_only_share": 1, "regularizers.orientation_start": 0, "regularizers.orientation_end": 0,
    "background.random_probability": 0.5, "background.random_kind": "color", "background.random_min": 0,
    "background.random_max": 1, "field.hash_start_level": 0,
}  # fmt: skip
PROLIFIC = HASH_GRID | ADAMW | STEADY | AROUND | FOV | UNLIT | {
    "run.steps": 25000, "run.views_per_step": 1, "render.resolution": 512, "render.coarse_resolution": 64,
    "render.coarse_share": 0.2, "render.coarse_views": 0, "camera.elevation_min": -10, "camera.elevation_max": 45,
    "camera.distance_min": 1, "camera.distance_max": 1.5, "field.bounding_radius": 1, "field.density_bias_width": 0.5,
    "field.density_scale": 1, "guidance.rule": "vsd", "guidance.omega": 6.5, "guidance.weighting": "sigma2",
    "guidance.lora_rank": 4, "guidance.lora_rate": 1e-4, "guidance.side_azimuth": 30, "guidance.t_min": 0.02,
    "guidance.t_min_end": 0, "guidance.t_max": 0.98, "guidance.t_max_end": 0.5, "guidance.t_anneal_begin": 0.2,
    "guidance.t_anneal_share": 0, "regularizers.opacity_start": 10 / 4096, "regularizers.opacity_end": 10 / 262144,
    "regularizers.opacity_begin": 0.2, "regularizers.opacity_share": 0, "regularizers.entropy_start": 0,
    "regularizers.entropy_end": 1000 / 262144, "regularizers.entropy_begin": 0.4, "regularizers.entropy_share": 0,
}  # fmt: skip
RFDS = HASH_GRID | ADAMW | STEADY | AROUND | FOV | UNLIT | {
    "run.steps": 15000, "run.views_per_step": 1, "render.resolution": 512, "render.coarse_resolution": 256,
    "render.coarse_share": 1 / 3, "camera.elevation_min": -10, "camera.elevation_max": 45, "camera.distance_min": 1,
    "camera.distance_max": 1.5, "field.bounding_radius": 1, "field.density_bias_width": 0.5,
    "guidance.rule": "sds", "guidance.omega": 99, "guidance.weighting": "clean", "guidance.t_min": 0.02,
    "guidance.t_max": 0.7, "guidance.t_max_end": 0.7, "guidance.side_azimuth": 30,
    "guidance.negative_prompt": "unrealistic, blurry, low quality, oversaturation.", "model.image_size": 512,
    "regularizers.opacity_start": 0.025, "regularizers.opacity_end": 0.025, "regularizers.entropy_start": 0.025,
    "regularizers.entropy_end": 0.025,
}  # fmt: skip
MVDREAM = HASH_GRID | ADAMW | STEADY | UNLIT | {
    "run.steps": 10000, "run.views_per_step": 4, "render.coarse_views": 8, "render.resolution": 256,
    "render.coarse_resolution": 64, "render.coarse_share": 0.5, "camera.views_per_set": 4, "camera.elevation_min": 0,
    "camera.elevation_max": 30, "camera.framing": "fill", "camera.fill_min": 1, "camera.fill_max": 1.25,
    "camera.distance_min": 0.692820, "camera.distance_max": 3.797877,  # half of 0.8 / tan(30), of 1 / tan(7.5) degrees
    "field.bounding_radius": 0.5, "field.density_bias_width": 0.25, "field.density_scale": 2, "guidance.rule": "sds",
    "guidance.omega": 49, "guidance.weighting": "clean", "guidance.rescale": 0.5, "guidance.view_dependent": False,
    "guidance.t_min": 0.98, "guidance.t_min_end": 0.02, "guidance.t_max": 0.98, "guidance.t_max_end": 0.5,
    "guidance.t_anneal_begin": 0, "guidance.t_anneal_share": 0.8, "regularizers.opacity_start": 0,
    "regularizers.opacity_end": 0, "regularizers.entropy_end": 0,
}  # fmt: skip
SHADED = {
    "shading.albedo_only_share": 0.5, "shading.shaded_probability": 0.75, "shading.textureless_probability": 0.5,
    "shading.ambient": 0, "shading.ambient_max": 1, "light.distance_min": 0.4, "light.distance_max": 0.75,
    "light.direction_std": 0.5, "field.normals": "analytic", "regularizers.orientation_start": 10 / 4096,
    "regularizers.orientation_end": 1000 / 65536, "regularizers.orientation_share": 0.5,
}  # fmt: skip
MAGIC3D = {
    "run.steps": 5000, "render.resolution": 512, "guidance.t_min": 0.02, "guidance.t_max": 0.5,
    "guidance.t_max_end": 0.5, "guidance.view_words": "four", "guidance.textureless_words": "",
    "guidance.weighting": "sigma2", "shading.ambient": 0, "shading.ambient_max": 1, "refine.color_rate": 0.01,
    "refine.normals": 10000,
}  # fmt: skip
COARSE = DREAMFUSION | {  # magic3d-coarse-*: no progressive levels, weighting_strategy uniform, soft_shading
    "run.steps": 10000, "field.hash_start_level": 0, "shading.albedo_only_share": 0.2001,
    "regularizers.orientation_share": 0.5, "guidance.weighting": "uniform", "shading.ambient": 0,
    "shading.ambient_max": 1,
}  # fmt: skip
SURFACE = {  # magic3d-refine-sd
    "surface.steps": 5000, "surface.resolution": 512, "surface.supersampling": 1,
    "surface.focal_min": 1.207107, "surface.focal_max": 1.866025,  # 0.5 / tan(22.5), 0.5 / tan(15) degrees
    "surface.omega": 100, "surface.weighting": "sigma2", "surface.t_min": 0, "surface.t_max": 0.5,
    "surface.t_max_end": 0.5, "surface.normals": 0, "surface.consistency": 10000, "surface.color_rate": 0.01,
    "surface.texture_rate": 0.01, "mesh.resolution": 128, "mesh.texture": 1024, "shading.ambient": 0,
    "shading.ambient_max": 1,
}  # fmt: skip
MV_REFINE = STEADY | {name: MVDREAM[name] for name in MVDREAM if name.startswith("camera.")}

TABLE: dict[str, dict[str, Any]] = {
    "pixel/draft": DREAMFUSION | SHORT | IF,
    "pixel/standard": DREAMFUSION | LONG | IF,
    "pixel/fine": COARSE
    | IF
    | SURFACE
    | {"surface.omega": 20, "surface.resolution": 64, "surface.supersampling": 2, "mesh.texture": 256},
    "pixel/refine": MAGIC3D | {"guidance.omega": 20, "render.resolution": 64},
    "latent/draft": DREAMFUSION | SHORT | SD,
    "latent/standard": DREAMFUSION | LONG | SD,
    "latent/fine": COARSE | SD | SURFACE,
    "latent/paper": PROLIFIC,
    "latent/refine": MAGIC3D | {"guidance.omega": 100},
    "sdxl/draft": DREAMFUSION | SHORT | SD | XL,
    "sdxl/standard": DREAMFUSION | LONG | SD | XL,
    "sdxl/fine": DREAMFUSION | LONG | SD | XL | SURFACE,
    "sdxl/refine": MAGIC3D | {"guidance.omega": 100},
    "flow/draft": RFDS
    | {"run.steps": 5000, "render.resolution": 256, "render.coarse_resolution": 0, "model.image_size": 256},
    "flow/standard": RFDS,
    "flow/fine": RFDS
    | SURFACE
    | {
        "run.steps": 5000, "render.resolution": 256, "render.coarse_resolution": 0, "surface.omega": 99,
        "surface.weighting": "clean", "surface.t_max": 0.7, "surface.t_max_end": 0.7,
    },
    "flow/refine": MAGIC3D | {name: RFDS[name] for name in RFDS if name.startswith(("guidance.", "model."))},
    "multi-view/draft": MVDREAM
    | {
        "run.steps": 5000, "run.views_per_step": 8, "render.coarse_views": 0, "render.resolution": 64,
        "render.coarse_resolution": 0,
    },
    "multi-view/standard": MVDREAM,
    "multi-view/fine": MVDREAM
    | SURFACE
    | {
        "surface.omega": 49, "surface.weighting": "clean", "surface.resolution": 256, "surface.supersampling": 2,
        "surface.focal_min": 0, "surface.focal_max": 0, "mesh.texture": 512, "light.distance_min": 0.4,
        "light.distance_max": 0.75, "light.direction_std": 0.5,
    },
    "multi-view/paper": MVDREAM | SHADED,
    "multi-view/refine": MAGIC3D
    | MV_REFINE
    | {
        "guidance.omega": 49, "guidance.weighting": "clean", "guidance.rescale": 0.5, "guidance.view_dependent": False,
        "render.resolution": 256,
    },
}  # fmt: skip


def base_of(recipe: Recipe) -> Config:
    return REFINE if recipe.name == "refine" else PAPER


@pytest.mark.parametrize("recipe", PUBLISHED, ids=lambda recipe: recipe.path)
def test_numbers_are_those_that_are_published(recipe: Recipe) -> None:
    """Lengths and focal lengths above are given to six digits."""
    wanted = TABLE[recipe.path]
    found = {name: setting_value(recipe.config, name) for name in wanted}
    for name, value in wanted.items():
        expected = pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
        assert found[name] == expected, f"{name}: {found[name]!r}, published {value!r}"


@pytest.mark.parametrize("recipe", PUBLISHED, ids=lambda recipe: recipe.path)
def test_every_number_that_is_not_the_papers_has_a_source(recipe: Recipe) -> None:
    base, listed = base_of(recipe), {number.setting: number for number in recipe.numbers}
    differing = {
        name for name in setting_fields(Config) if setting_value(recipe.config, name) != setting_value(base, name)
    }
    assert differing <= set(listed) and differing, "a number without a source"
    for name, number in listed.items():
        assert setting_value(recipe.config, name) == number.value
        assert number.published and number.source.url.startswith("https://github.com/") and number.source.name
    untyped = differing - set(TABLE[recipe.path]) - {"guidance.negative_prompt"}
    assert not untyped, f"not in the table of this test: {untyped}"
    assert recipe.left_out and recipe.basis in recipe.notice


def test_recipes_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == recipes_page(), "run python -m tools.docs.recipe_page"


def test_the_table_has_every_published_recipe() -> None:
    assert set(TABLE) == {recipe.path for recipe in PUBLISHED}


@pytest.mark.parametrize("path", [recipe.path for family in RECIPES.values() for recipe in family.values()])
def test_recipes_are_valid_configurations_of_their_kind_of_run(path: str) -> None:
    family, _, name = path.partition("/")
    recipe = RECIPES[family][name]  # type: ignore[index]
    assert validate(recipe.config) is recipe.config and (recipe.family, recipe.name) == (family, name)
    if family != "clip":  # whose own settings tests/unit/test_settings.py covers
        check_settings_used(recipe.config, *(("mesh", REFINE) if name == "refine" else ()))
    assert get_preset(path, recipe.family) is recipe


def test_lengths_of_mvdream_are_halved_and_densities_doubled() -> None:
    """The same image: alpha = 1 - exp(-tau delta) does not change, and our sphere of radius 0.5 is its unit sphere."""
    config = RECIPES["multi-view"]["standard"].config
    field, camera = config.field, config.camera
    assert field.density_scale * field.bounding_radius == 1.0 * 1.0
    # fill = 2 r focal / distance at r = 0.5, with focal = 0.5 / tan(fov / 2) and distance = 0.5 u / tan(fov / 2).
    for u, fill in ((1.0, camera.fill_min), (0.8, camera.fill_max)):
        for fov in (15, 60):
            slope = math.tan(math.radians(fov) / 2)
            assert fill == pytest.approx((0.5 / slope) / (0.5 * u / slope), rel=1e-12)


def test_a_quality_depends_on_the_family() -> None:
    assert get_preset("draft") is PRESETS["draft"] is RECIPES["starter"]["draft"]
    assert len({get_preset("standard", f).config.guidance.omega for f in ("starter", "pixel", "latent", "flow")}) == 4
    assert get_preset("paper", "pixel").config == get_preset("paper", "starter").config == PAPER
    assert get_preset("dream-fields", "latent") is RECIPES["clip"]["dream-fields"], "its method refuses the model"
    assert preset_config("refine", has_mesh=True, family="latent") == RECIPES["latent"]["refine"].config
    assert {name: method_of(name) for name in ("draft", "latent/paper", "clip-mesh")} == {
        "draft": "dreamfusion", "latent/paper": "dreamfusion", "clip-mesh": "clip-mesh"
    }  # fmt: skip
    assert set(PRESETS) <= set(QUALITIES) and "refine" not in QUALITIES


@pytest.mark.parametrize(
    ("name", "family", "words"),
    [
        ("ultra", "latent", "unknown preset 'ultra'; allowed are draft, standard, fine, paper; choose"),
        ("paper", "sdxl", r"no preset 'paper' for SDXL models .*; allowed are draft, standard, fine; choose"),
        ("pixel/draft", "latent", r"for pixel models \(IFPipeline\), and the model .* latent .*choose latent/draft"),
        ("latent/paper", "flow", "no preset 'paper' for flow models"),
        ("imagen/draft", "pixel", "unknown preset 'imagen/draft'; allowed are draft.*pixel/draft"),
        ("sdxl/paper", "sdxl", "unknown preset 'sdxl/paper'"),
        ("clip/draft", "starter", "unknown preset 'clip/draft'"),
    ],
)
def test_presets_of_another_family_are_refused(name: str, family: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        get_preset(name, family)
    assert "\n" not in str(caught.value)


def test_a_setting_twice_or_unknown_is_an_error() -> None:
    row = rows(threestudio("dreamfusion-sd"))
    twice = (row("guidance.omega", 100.0, "a"), row("guidance.omega", 20.0, "b"))
    with pytest.raises(ValueError, match="guidance.omega twice"):
        published_recipe("latent", "x", "x", twice)
    with pytest.raises(ConfigError, match="unknown setting"):
        published_recipe("latent", "x", "x", (row("guidance.omegas", 1.0, "a"),))


def test_starter_numbers_stay_where_they_were() -> None:
    """Its owner edits them in recipes/starter.py; presets only collect them."""
    from dreamwright.backend.config.recipes import starter

    assert asdict(PRESETS["draft"].config) == asdict(starter.DRAFT)
    assert PRESETS["standard"].config is starter.STANDARD and PRESETS["paper"].config == Config()
