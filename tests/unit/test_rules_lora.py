# SPDX-License-Identifier: GPL-3.0-or-later
"""VSD's LoRA in real networks: what is frozen, what learns and from what, memory, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from dreamwright.backend.cameras.poses import orbit_cameras
from dreamwright.backend.config.schema import GuidanceConfig
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.guidance.lora_estimate import LoraEstimate
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.models.lora_targets import camera_numbers, check_lora, lora_numbers
from dreamwright.backend.models.memory_estimate import estimate_memory
from dreamwright.backend.models.pipeline_folder import open_pipeline
from dreamwright.backend.runtime.rng import PerViewGenerator
from dreamwright.backend.starter.architecture import build_parts, save_pipeline
from dreamwright.backend.training.guidance_loading import check_rule
from tests.testing.gaussian_priors import conditioned, seeded
from tests.testing.tiny_families import write_family
from tests.testing.tiny_model import TINY, quick_config
from tests.testing.tiny_pipeline import write_pipeline

CONFIG = GuidanceConfig(rule="vsd", omega=3.0, noises=2, lora_rate=0.01)
CAMERAS = orbit_cameras([0.0, 90.0], 15.0, 1.8, 1.0)
PROMPTS = ["a red chair", "a blue chair"]
FAMILIES = ("pixel", "sd21", "sdxl", "sd3")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("models")
    return {
        "pixel": write_pipeline(top / "pixel"),
        "multi-view": save_multi_view(top / "multi-view"),
        **{name: write_family(name, top / name) for name in FAMILIES if name != "pixel"},
    }


def save_multi_view(folder: Path) -> Path:
    save_pipeline(build_parts(0, TINY, views=4), folder, torch.float32)
    return folder


def space(denoiser) -> tuple[int, int, int]:
    if hasattr(denoiser, "channels"):
        return denoiser.channels, denoiser.latent_size, denoiser.latent_size
    return 3, denoiser.image_size, denoiser.image_size


def images(denoiser, n: int = 2) -> torch.Tensor:
    return torch.rand(n, 3, denoiser.image_size, denoiser.image_size, generator=seeded(0))


def learn(estimate: LoraEstimate) -> None:
    estimate.finish_gradients()
    estimate.optimizer.step()
    estimate.discard_gradients()


def own_weights(estimate: LoraEstimate) -> dict[str, torch.Tensor]:
    """Copies of the frozen network's own weights, by its own names or those that the LoRA's layers give them."""
    mine = {id(weight) for weight in estimate.weights.values()}
    named = estimate.denoiser.network.named_parameters()
    return {name: weight.detach().clone() for name, weight in named if id(weight) not in mine}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_frozen_network_stays_bit_by_bit(family, folders):
    """Its predictions before the LoRA is there, with it, and after it has learned; no weight of its own has a gradient.

    Before it learns, the estimate is the frozen network, so VSD is CSD under the same noise.
    """
    denoiser = load_denoiser(folders[family])
    chosen, image = conditioned(denoiser, PROMPTS), images(denoiser)
    z, t = torch.randn(2, *space(denoiser), generator=seeded(1)), torch.tensor([0.3, 0.8])
    before, mode = denoiser.predict_raw(z, t, chosen.positive), torch.random.get_rng_state()
    estimate = LoraEstimate(denoiser, CONFIG)
    assert torch.equal(torch.random.get_rng_state(), mode)  # no global number was drawn
    assert torch.equal(denoiser.predict_raw(z, t, chosen.positive), before)
    frozen = own_weights(estimate)
    vsd = ScoreDistillation(denoiser, CONFIG, estimate)
    csd = ScoreDistillation(denoiser, dataclasses.replace(CONFIG, rule="csd"))
    expected = csd.gradient(image, CAMERAS, chosen, seeded(3), 0.0).gradient
    first = vsd.gradient(image, CAMERAS, chosen, seeded(3), 0.0)
    # float32: networks of two batch sizes round differently, up to 1e-4 of predictions, times 1 + 2 omega.
    torch.testing.assert_close(first.gradient, expected, rtol=2e-2, atol=2e-3 * float(expected.abs().max()))
    learn(estimate)
    for seed in range(2):
        later = vsd.gradient(image, CAMERAS, chosen, seeded(3 + seed), 0.0)
        assert not later.gradient.requires_grad
        learn(estimate)
    assert torch.equal(denoiser.predict_raw(z, t, chosen.positive), before)
    assert all(torch.equal(frozen[name], weight) for name, weight in own_weights(estimate).items())
    mine = {id(weight) for weight in estimate.weights.values()}
    others = [weight for weight in denoiser.network.parameters() if id(weight) not in mine]
    assert not any(weight.requires_grad or weight.grad is not None for weight in others)
    assert any(bool((weight != 0).any()) for name, weight in estimate.weights.items() if name.endswith("lora_B"))


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_those_that_the_headers_promise(family, folders):
    """Only attention's projections and the camera, so the memory is known before a weight is read."""
    estimate, folder = LoraEstimate(load_denoiser(folders[family]), CONFIG), open_pipeline(folders[family])
    numbers = {name: weight.numel() for name, weight in estimate.weights.items()}
    camera = sum(count for name, count in numbers.items() if name.startswith("camera."))
    assert sum(numbers.values()) - camera == lora_numbers(folder, CONFIG.lora_rank) > 0
    assert camera == camera_numbers(folder) and (camera > 0) == (family != "pixel")  # whose tiny U-Net is unshuffled


def recorded_calls(denoiser, monkeypatch) -> list[tuple[int, bool]]:
    """(rows, whether with a graph) of each call of the network's predictions."""
    calls, predict = [], denoiser.predict_with_graph

    def record(z_t, t, conditioning):
        calls.append((len(z_t), torch.is_grad_enabled()))
        return predict(z_t, t, conditioning)

    monkeypatch.setattr(denoiser, "predict_with_graph", record)
    return calls


def test_calls_of_the_network(folders, monkeypatch):
    """2 views of 2 draws: 8 rows for both prompts, 4 of the estimate, 2 to learn from, which alone have a graph."""
    denoiser = load_denoiser(folders["sd21"])
    guidance = ScoreDistillation(denoiser, CONFIG, LoraEstimate(denoiser, CONFIG))
    calls = recorded_calls(denoiser, monkeypatch)
    guidance.gradient(images(denoiser), CAMERAS, conditioned(denoiser, PROMPTS), seeded(0), 0.0)
    assert calls == [(8, False), (4, False), (2, True)]


def test_the_gradient_is_that_of_the_mean_loss(folders):
    """Against autograd of mean |prediction - truth|^2 over views and numbers, of the draws that `learn` makes."""
    denoiser = load_denoiser(folders["sd21"])
    estimate = LoraEstimate(denoiser, CONFIG)
    with torch.no_grad():
        for weight in estimate.weights.values():
            weight.add_(0.05 * torch.randn(weight.shape, generator=seeded(7)))
    seen = {}
    estimate.predict = lambda z_t, draws: seen.setdefault("draws", draws) and torch.zeros_like(z_t)
    chosen = conditioned(denoiser, PROMPTS)
    ScoreDistillation(denoiser, CONFIG, estimate).gradient(images(denoiser), CAMERAS, chosen, seeded(0), 0.0)
    estimate.discard_gradients()
    draws = dataclasses.replace(seen["draws"], generator=seeded(4))
    loss = estimate.learn(draws)
    found = [weight.grad for weight in estimate.finish_gradients()]
    numbers, clean = seeded(4), draws.clean[:2]
    t = torch.rand(2, generator=numbers)
    noise = torch.randn(clean.shape, generator=numbers)
    alpha, sigma = (level.view(-1, 1, 1, 1) for level in denoiser.alpha_sigma(t))
    with estimate._active(draws, 1), torch.enable_grad():
        output = denoiser.predict_with_graph(alpha * clean + sigma * noise, t, draws.positive[:2])
        expected = (output - (alpha * noise - sigma * clean)).square().mean()  # v
        wanted = torch.autograd.grad(expected, list(estimate.weights.values()))
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    for one, other in zip(found, wanted, strict=True):
        # float32: the same graph with its first gradient scaled, so some roundings of 1e-7 of each layer's largest sum.
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()) + 1e-9)


def test_it_learns_the_renders_and_their_cameras(folders):
    """40 steps on one image a camera: the loss at fixed draws falls, and the prediction depends on the camera."""
    denoiser = load_denoiser(folders["sd21"])
    config = dataclasses.replace(CONFIG, noises=1)
    estimate = LoraEstimate(denoiser, config)
    guidance, chosen = ScoreDistillation(denoiser, config, estimate), conditioned(denoiser, PROMPTS[:1] * 2)
    image = torch.tensor([0.1, 0.9]).view(2, 1, 1, 1).expand(2, 3, 16, 16)

    def loss() -> float:
        found = [guidance.gradient(image, CAMERAS, chosen, seeded(s), 0.0).scalars["lora_loss"] for s in range(8)]
        estimate.discard_gradients()
        return sum(found) / len(found)

    before = loss()
    for seed in range(40):
        guidance.gradient(image, CAMERAS, chosen, seeded(100 + seed), 0.0)
        learn(estimate)
    # A random network errs by more than the target's own square; learning to predict zero alone would do that.
    assert loss() < 0.9 * before
    seen = {}
    predict = estimate.predict
    estimate.predict = lambda z_t, draws: seen.setdefault("draws", draws) and predict(z_t, draws)
    guidance.gradient(image, CAMERAS, chosen, seeded(0), 0.0)
    draws, z_t = seen["draws"], torch.randn(2, *space(denoiser), generator=seeded(1))
    swapped = dataclasses.replace(draws, cameras=orbit_cameras([90.0, 0.0], 15.0, 1.8, 1.0))
    unknown = dataclasses.replace(draws, cameras=None)
    one, other, none = (predict(z_t, chosen) for chosen in (draws, swapped, unknown))
    # Far above rounding, 1e-6 of predictions of about 1.
    assert (one - other).abs().max() > 1e-3 and (one - none).abs().max() > 1e-3


def test_views_in_chunks_learn_as_one(folders):
    denoiser = load_denoiser(folders["sd3"])
    estimate = LoraEstimate(denoiser, CONFIG)
    guidance, chosen, image = (
        ScoreDistillation(denoiser, CONFIG, estimate), conditioned(denoiser, PROMPTS), images(denoiser),
    )  # fmt: skip
    guidance.gradient(image, CAMERAS, chosen, PerViewGenerator.of(2, slice(0, 2), 5), 0.0)
    whole = [None if weight.grad is None else weight.grad.clone() for weight in estimate.finish_gradients()]
    estimate.discard_gradients()
    for view in range(2):
        rows, generator = slice(view, view + 1), PerViewGenerator.of(2, slice(view, view + 1), 5)
        own = conditioned(denoiser, PROMPTS[rows])
        guidance.gradient(image[rows], CAMERAS[rows], own, generator, 0.0)
    for one, weight in zip(whole, estimate.finish_gradients(), strict=True):
        if one is not None:
            # float32: another batch is rounded differently, 1e-6 of each layer's largest sum.
            torch.testing.assert_close(weight.grad, one, rtol=1e-2, atol=1e-3 * float(one.abs().max()) + 1e-9)


def test_a_set_of_views_learns_at_one_time(folders, monkeypatch):
    """A multi-view network has its cameras and reads the views of a set together, so they share t."""
    denoiser = load_denoiser(folders["multi-view"])
    config = dataclasses.replace(CONFIG, noises=1)
    estimate = LoraEstimate(denoiser, config)
    assert not any(name.startswith("camera.") for name in estimate.weights)
    assert camera_numbers(open_pipeline(folders["multi-view"])) == 0
    seen, predict = [], denoiser.predict_with_graph

    def record(z_t, t, conditioning):
        seen.append(t.tolist())
        return predict(z_t, t, conditioning)

    monkeypatch.setattr(denoiser, "predict_with_graph", record)
    cameras = orbit_cameras([0.0, 90.0, 180.0, 270.0], 15.0, 1.8, 1.0)
    chosen = conditioned(denoiser, ["a red mushroom"] * 4)
    image = images(denoiser, 4)
    ScoreDistillation(denoiser, config, estimate).gradient(image, cameras, chosen, seeded(0), 0.0)
    assert len(set(seen[-1])) == 1 and len(seen[-1]) == 4


def test_half_precision_networks_learn_in_float32(folders):
    """bfloat16 has 8 bits: steps of 1e-4 of a weight would be lost in it."""
    denoiser = load_denoiser(folders["sd21"], dtype=torch.bfloat16)
    estimate = LoraEstimate(denoiser, CONFIG)
    guidance, chosen = ScoreDistillation(denoiser, CONFIG, estimate), conditioned(denoiser, PROMPTS)
    for _ in range(2):
        assert torch.isfinite(guidance.gradient(images(denoiser), CAMERAS, chosen, seeded(0), 0.0).gradient).all()
        learn(estimate)
    assert {weight.dtype for weight in estimate.weights.values()} == {torch.float32}
    assert {weight.dtype for weight in own_weights(estimate).values()} == {torch.bfloat16}


def test_recomputing_changes_no_gradient(folders):
    found = []
    for recompute in (False, True):
        denoiser = load_denoiser(folders["sd21"])
        config = dataclasses.replace(CONFIG, lora_recompute=recompute)
        estimate = LoraEstimate(denoiser, config)
        guidance = ScoreDistillation(denoiser, config, estimate)
        guidance.gradient(images(denoiser), CAMERAS, conditioned(denoiser, PROMPTS), seeded(0), 0.0)
        found.append([weight.grad for weight in estimate.finish_gradients()])
    for one, other in zip(*found, strict=True):
        # The same operations once more; a kernel may round by where its numbers lie in memory, 1e-6 of the largest.
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * float(one.abs().max()) + 1e-12)


def test_memory_counts_what_a_rule_adds(folders):
    """CSD's rows and VSD's LoRA: a weight, a gradient, its sum and two moments of 4 bytes, and the graph."""
    folder = open_pipeline(folders["sd21"])

    def parts(*settings: str) -> dict[str, int]:
        config = quick_config("guidance.view_words=four", *settings)
        return dict(estimate_memory(folder, config, torch.float32, "cpu").parts)

    plain, vsd = parts(), parts("guidance.rule=vsd")
    lora = lora_numbers(folder, 4) + camera_numbers(folder)
    assert vsd["LoRA and its optimizer"] == 20 * lora and "LoRA and its optimizer" not in plain
    assert vsd["its activations"] > plain["its activations"]
    recomputed = parts("guidance.rule=vsd", "guidance.lora_recompute=true")
    assert plain["its activations"] <= recomputed["its activations"] < vsd["its activations"]
    assert parts("guidance.rule=vsd", "guidance.lora_rank=8")["LoRA and its optimizer"] > vsd["LoRA and its optimizer"]
    negative = "guidance.negative_prompt=ugly"
    three, two = parts("guidance.rule=csd", negative), parts("guidance.rule=csd")
    assert three["its activations"] > two["its activations"] == plain["its activations"]
    unguided = parts("guidance.omega=0", "guidance.rule=sdi", "guidance.inversion_omega=0")
    assert unguided["its activations"] < parts("guidance.omega=0", "guidance.rule=sdi")["its activations"]


def without_attention(folder: Path, copy: Path) -> Path:
    """The same pipeline with a U-Net of convolutions."""
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "unet")
    UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, mid_block_type=None, up_block_types=("UpBlock2D",) * 2,
        cross_attention_dim=16,
    ).save_pretrained(copy / "unet")  # fmt: skip
    return copy


def test_a_network_without_attention_is_refused_by_its_headers(folders, tmp_path):
    copy = without_attention(folders["sd21"], tmp_path / "plain")
    opened = open_pipeline(copy)
    config = quick_config("guidance.rule=vsd")
    with pytest.raises(ConfigError, match="no attention that a LoRA can change; allowed with this model are sds") as no:
        check_rule(opened, config)
    assert "\n" not in str(no.value) and lora_numbers(opened, 4) == 0
    check_rule(opened, quick_config())  # other rules take it
    check_lora(open_pipeline(folders["sd21"]), 4)
    denoiser = load_denoiser(copy)
    with pytest.raises(ConfigError, match="no attention that a LoRA can change"):
        LoraEstimate(denoiser, CONFIG)
