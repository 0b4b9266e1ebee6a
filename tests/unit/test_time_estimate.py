# SPDX-License-Identifier: GPL-3.0-or-later
"""The time of a run, said before it starts: the counted networks of every family, and times of a made-up device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dreamwright.backend.cameras.poses import orbit_cameras
from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.presets import PRESETS, RECIPES, get_preset
from dreamwright.backend.config.schema import Config
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.guidance.network_work import encoder_work, image_tower_work, network_work, views_together
from dreamwright.backend.models.pipeline_folder import open_pipeline
from dreamwright.backend.runtime.device_speed import DeviceSpeed
from dreamwright.backend.runtime.operation_count import Work
from dreamwright.backend.training import time_estimate
from dreamwright.backend.training.job import Job
from dreamwright.backend.training.step_work import NetworkCosts, Stage, diffusion_work, image_text_work, lit_share
from dreamwright.backend.training.time_estimate import (
    FASTEST,
    FEWEST_STEPS,
    LEAST_RENDERED,
    SLOWEST,
    estimate_time,
    network_costs,
    remaining,
    time_of,
)
from tests.testing.tiny_clip import write_clip
from tests.testing.tiny_families import write_family
from tests.testing.tiny_model import save_tiny_model
from tests.testing.tiny_mvdream import write_mvdream
from tests.testing.tiny_pipeline import write_pipeline

MADE_UP = DeviceSpeed(flops_s=1e9, bytes_s=1e8, call_s=1e-6)
UNIT = NetworkCosts(Work(flops=1.0), 1, Work(flops=100.0))  # a row of the network, a view of the encoder
FAMILIES = ("starter", "pixel", "latent", "sdxl", "flow", "multi-view")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("models")
    return {
        "starter": save_tiny_model(top / "starter"),
        "pixel": write_pipeline(top / "pixel"),
        "latent": write_family("sd15", top / "latent"),
        "sdxl": write_family("sdxl", top / "sdxl"),
        "flow": write_family("sd3", top / "flow"),
        "multi-view": write_mvdream(top / "multi-view"),
        "clip": write_clip(top / "clip"),
    }


def flops_of_a_set(folder: Path) -> int:
    """Operations of the loaded denoiser's call on one set of views, by torch's own counter of real numbers."""
    opened = open_pipeline(folder)
    denoiser: Any = load_denoiser(folder)
    rows = views_together(opened)
    prompts = ["a red mushroom"] * rows
    conditioning = denoiser.embed(prompts)
    if rows > 1:
        cameras = orbit_cameras([90.0 * view for view in range(rows)], 15.0, 2.0, 1.5)
        conditioning = denoiser.with_cameras(conditioning, cameras)
    channels = getattr(denoiser, "channels", 3)
    side = getattr(denoiser, "latent_size", denoiser.image_size)
    noised = torch.zeros(rows, channels, side, side)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        denoiser.predict_raw(noised, torch.full((rows,), 0.5), conditioning)
    return counter.get_total_flops()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_network_of_every_family_is_counted_without_its_weights(family: str, folders: dict[str, Path]) -> None:
    folder = open_pipeline(folders[family])
    size = int(folder.config(folder.network)["sample_size"])
    counted = network_work(folder, size, torch.float32)
    assert counted.flops == flops_of_a_set(folders[family])
    half = network_work(folder, size, torch.float16)
    assert half.flops == counted.flops and counted.moved / 2.2 < half.moved < counted.moved / 1.8


def test_the_encoder_is_counted_with_its_gradient(folders: dict[str, Path]) -> None:
    """A frozen layer's gradient takes as much as the layer; only attention's products have two gradients each."""
    denoiser: Any = load_denoiser(folders["latent"])
    image = torch.zeros(1, 3, 16, 16, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        denoiser.vae.encode(image).sum().backward()
    counted = encoder_work(open_pipeline(folders["latent"]), 16, torch.float32)
    assert counted.flops == counter.get_total_flops()
    assert encoder_work(open_pipeline(folders["latent"]), 32, torch.float32).flops > 4 * counted.flops


def test_clip_s_image_tower_is_counted_with_its_gradient(folders: dict[str, Path]) -> None:
    from dreamwright.backend.guidance.clip_model import load_image_text
    from dreamwright.backend.models.json_files import read_object

    model = load_image_text(folders["clip"])
    pixels = torch.zeros(1, 3, model.image_size, model.image_size, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.embed_pixels(pixels).sum().backward()
    counted = image_tower_work(read_object(folders["clip"] / "config.json"), torch.float32)
    width = model.network.config.vision_config.hidden_size
    projection = 2 * 2 * width * model.network.config.projection_dim  # which the estimate leaves out
    assert counted.flops == counter.get_total_flops() - projection


def flops(*settings: str, views: int = 4) -> float:
    """Operations of a step's guidance where the network's row takes 1 and the encoder's view 100."""
    return diffusion_work(UNIT, apply_settings(PRESETS["draft"].config, settings), views).flops


def test_rows_of_each_rule_by_hand() -> None:
    """Four views, two noises: prompt and empty prompt for each, and the encoder once a view."""
    assert flops("guidance.noises=2") == 4 * 2 * 2 + 400
    assert flops("guidance.noises=2", "guidance.omega=0") == 4 * 2 + 400
    assert flops("guidance.noises=1", "guidance.opposite_weight=1") == 4 * 3 + 400
    # VSD: the LoRA's own prediction for each draw, and one row a view with its graph and its gradient.
    assert flops("guidance.noises=2", "guidance.rule=vsd") == 4 * 2 * 2 + 4 * 2 + 2 * 4 + 400
    assert flops("guidance.noises=2", "guidance.rule=vsd", "guidance.lora_recompute=true") == 24 + 3 * 4 + 400
    # SDI: ten inversion steps over all times, of which a view at time t takes t; the mean time is 0.5.
    times = ("guidance.t_min=0.5", "guidance.t_max=0.5", "guidance.t_max_end=0.5")
    assert flops("guidance.noises=1", "guidance.rule=sdi", *times) == pytest.approx(4 * 2 * (1 + 10 * 0.5) + 400)
    assert flops("guidance.noises=1", "model.vae_recompute=true") == 8 + 600


def test_sets_of_views_are_counted_as_sets() -> None:
    config = apply_settings(PRESETS["draft"].config, ["guidance.noises=1"])
    assert diffusion_work(NetworkCosts(Work(flops=7.0), together=4), config, 8).flops == 2 * 2 * 7
    crops = apply_settings(PRESETS["dream-fields"].config, ["clip.crops=5"])
    assert image_text_work(Work(flops=2.0), crops, 3).flops == 2 * 3 * 5


@given(st.integers(1, 64))
def test_the_guidance_s_work_grows_in_proportion_to_views(views: int) -> None:
    assert flops(views=views) == pytest.approx(views * flops(views=1))


def test_the_time_of_a_made_up_device_by_hand() -> None:
    """10 steps of 2e9 operations and 1e8 bytes (3 s), rendering 4e8 bytes (4 s); then 5 steps of 1 s."""
    stages = (Stage(10, Work(2e9, 1e8), Work(0, 4e8)), Stage(5, Work(1e9), Work()))
    masked = apply_settings(Config(), ["render.occupancy_resolution=32"])
    found = time_of(stages, masked, MADE_UP)
    assert found.low_s == pytest.approx(FASTEST * (10 * (3 + LEAST_RENDERED * 4) + 5))
    assert found.high_s == pytest.approx(SLOWEST * (10 * 7 + 5))
    assert found.steps == 15 and found.step.flops == pytest.approx((10 * 2e9 + 5 * 1e9) / 15)
    assert time_of(stages, Config(), MADE_UP).low_s == pytest.approx(FASTEST * 75), "no occupancy grid, no masking"
    assert time_of(stages, masked, MADE_UP, processes=2).high_s == pytest.approx(SLOWEST * 75 / 2)
    assert str(found).startswith("time: 1 to 2 min for 15 steps, by 1.67 GFLOP and 0.33 GB a step")


@given(st.lists(st.integers(1, 50), min_size=1, max_size=3), st.integers(0, 160))
def test_steps_that_are_done_are_taken_from_the_first_stages(steps: list[int], done: int) -> None:
    stages = tuple(Stage(count, Work(flops=index + 1.0), Work()) for index, count in enumerate(steps))
    each = [stage.guidance.flops for stage in stages for _ in range(stage.steps)][done:]
    left = remaining(stages, done)
    assert [stage.guidance.flops for stage in left for _ in range(stage.steps)] == each


def test_twice_the_steps_take_twice_the_time(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_estimate, "device_speed", lambda device, dtype: MADE_UP)

    def seconds(steps: int, done: int = 0) -> float:
        config = apply_settings(PRESETS["draft"].config, [f"run.steps={steps}", "surface.steps=0"])
        found = estimate_time(Job("a cup", "m", "draft", config), folders["starter"], torch.float32, "cpu", done)
        assert found is not None
        return found.high_s

    assert seconds(400) == pytest.approx(2 * seconds(200))
    assert seconds(400, done=200) < seconds(200) * 2, "coarse views come first"
    config = apply_settings(PRESETS["draft"].config, [f"run.steps={FEWEST_STEPS - 1}", "surface.steps=0"])
    assert estimate_time(Job("a cup", "m", "draft", config), folders["starter"], torch.float32, "cpu") is None


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family, recipes in RECIPES.items() for name in recipes]
)
def test_every_recipe_of_every_family_has_an_estimate(
    family: Any, name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_estimate, "device_speed", lambda device, dtype: MADE_UP)
    config = apply_settings(get_preset(name, family).config, ["model.image_size=0"])  # the tiny models are smaller
    job = Job("a cup", "m", name, config, family=family, input_mesh="0" * 64 if name == "refine" else "")
    found = estimate_time(job, folders[family], torch.float32, "cpu", vertices=500)
    assert found is not None and found.steps == config.total_steps
    assert 0 < found.low_s < found.high_s < float("inf")


def test_a_smaller_image_takes_less(folders: dict[str, Path]) -> None:
    folder = open_pipeline(folders["latent"])
    own, half = (
        network_costs(folder, apply_settings(Config(), [f"model.image_size={size}"]), torch.float32) for size in (0, 8)
    )
    assert half.forward.flops < own.forward.flops and half.encoder.flops < own.encoder.flops


def test_steps_with_normals() -> None:
    config = PRESETS["draft"].config  # 15% without light, then 70% of the views are lit, a look for each set
    alone = apply_settings(config, ["camera.views_per_set=1"])
    assert lit_share(alone, 4) == pytest.approx(0.85 * (1 - 0.3**4))
    assert lit_share(apply_settings(config, ["camera.views_per_set=4"]), 4) == pytest.approx(0.85 * 0.7)
    assert lit_share(apply_settings(config, ["regularizers.orientation_end=1"]), 4) == 1
