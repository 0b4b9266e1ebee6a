# SPDX-License-Identifier: GPL-3.0-or-later
"""SDS through a VAE encoder: gradient, network calls of a step, precision, memory options and commands."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from diffusers.hooks.group_offloading import ModuleGroup
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional

from dreamwright.backend.cli import sample
from dreamwright.backend.cli.main import main
from dreamwright.backend.config.schema import GuidanceConfig, ModelConfig
from dreamwright.backend.errors import ConfigError, RunError
from dreamwright.backend.guidance.denoisers.latent import LatentDiffusion
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.guidance.sampling import ancestral_sample, ancestral_steps, to_images
from dreamwright.backend.guidance.sds import ScoreDistillation, distill_image
from tests.testing.gaussian_priors import conditioned, seeded
from tests.testing.tiny_families import save, stable_diffusion, stable_diffusion_xl, write_family
from tests.testing.tiny_model import QUICK

GUIDED = GuidanceConfig(omega=4.0)
NAMES = ["sd15", "sd21", "sdxl", "sd3"]
# float16 rounds by 4.9e-4. In 100 layers that grows to sqrt(100) x 4.9e-4, times 1 + 2 omega = 9, to e = 4.4% of the
# gradient, and a gradient that is off by e has the cosine 1 - e^2 / 2 = 0.999 with the exact one.
FLOAT16 = 0.99


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    work = tmp_path_factory.mktemp("families")
    return {name: write_family(name, work / name) for name in NAMES}


def in_float64(folder: Path, config: ModelConfig = ModelConfig()) -> LatentDiffusion:
    """The denoiser with all weights in float64; it still returns its predictions in float32."""
    denoiser = load_denoiser(folder, dtype=torch.float64, config=config)
    for module in (denoiser.network, denoiser.vae.model):
        module.double()  # diffusers keeps some layers in float32
    return denoiser


def gradient_of(denoiser: LatentDiffusion, image: torch.Tensor, config: GuidanceConfig = GUIDED) -> torch.Tensor:
    conditioning = conditioned(denoiser, ["a red mushroom", "a blue chair"])
    return ScoreDistillation(denoiser, config).gradient(image, None, conditioning, seeded(3), 0.2).gradient


def image_of(size: int, views: int = 2) -> torch.Tensor:
    return torch.rand(views, 3, size, size, generator=seeded(1))


@pytest.mark.parametrize(("size", "noises"), [(16, 1), (10, 1), (16, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_equals_autograd_in_float64(folders, name, size, noises):
    """The gradient of the mean of w(t) (eps_hat - eps) . z(image) over the noises, by autograd, with the diffusers
    classes in float64."""
    folder, config = folders[name], dataclasses.replace(GUIDED, noises=noises)
    single = gradient_of(load_denoiser(folder), image_of(size), config)
    denoiser = in_float64(folder)
    image = image_of(size).double()
    ours = gradient_of(denoiser, image, config)

    guidance, draws = ScoreDistillation(denoiser, config), seeded(3)
    t = guidance.times(2, draws, 0.2)
    eps = torch.randn((2, noises, denoiser.channels, 8, 8), generator=draws).double()
    eps = eps.transpose(0, 1).flatten(0, 1)
    alpha, sigma = (level.double().view(-1, 1, 1, 1) for level in denoiser.alpha_sigma(t))
    timesteps = denoiser.model_timestep(t).repeat(2)
    prompts = ["a red mushroom", "a blue chair"] * noises + [""] * (2 * noises)
    text = {key: tensor.double() for key, tensor in denoiser.embed(prompts).tensors.items()}
    vae = AutoencoderKL.from_pretrained(folder / "vae", low_cpu_mem_usage=False).double().eval()
    leaf = image.double().requires_grad_(True)
    fitted = (
        functional.interpolate(leaf, (16, 16), mode="bilinear", align_corners=False, antialias=True)
        if size != 16
        else leaf
    )
    mean = vae.encode(2 * fitted - 1).latent_dist.mean
    z = (mean - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    z = z.repeat(noises, 1, 1, 1)
    with torch.no_grad():
        z_t = (alpha * z + sigma * eps).repeat(2, 1, 1, 1)
        if name == "sd3":
            transformer = (
                SD3Transformer2DModel.from_pretrained(folder / "transformer", low_cpu_mem_usage=False).double().eval()
            )
            output = transformer(z_t, text["hidden"], text["pooled"], timesteps.double()).sample
            noise = z_t + (1 - sigma.repeat(2, 1, 1, 1)) * output
        else:
            unet = UNet2DConditionModel.from_pretrained(folder / "unet", low_cpu_mem_usage=False).double().eval()
            sizes = torch.tensor([[16.0, 16.0, 0.0, 0.0, 16.0, 16.0]] * (4 * noises), dtype=torch.float64)
            added = {"text_embeds": text["pooled"], "time_ids": sizes} if name == "sdxl" else None
            output = unet(z_t, timesteps, text["hidden"], added_cond_kwargs=added).sample
            v = alpha.repeat(2, 1, 1, 1) * output + sigma.repeat(2, 1, 1, 1) * z_t
            noise = v if name == "sd21" else output
        conditional, unconditional = noise.chunk(2)
        residual = unconditional + 5.0 * (conditional - unconditional) - eps
    (expected,) = torch.autograd.grad((sigma**2 * residual * z).sum() / noises, leaf)
    assert ours.shape == image.shape
    largest = float(expected.abs().max())
    # Networks in float64 return predictions in float32: 6e-8, times 1 + 2 omega = 9, is 5e-7.
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=3e-6 * largest)
    # Networks in float32: 100 layers with sums of 150 products have sqrt(100 x 150) x 6e-8 = 7e-6, times 9, is 7e-5.
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=3e-4 * largest)


def counted(denoiser: LatentDiffusion) -> dict[str, list[tuple[int, bool]]]:
    """Record batch size and gradient mode of every later call of encoder, decoder and network."""
    calls: dict[str, list[tuple[int, bool]]] = {"encoder": [], "decoder": [], "network": []}
    vae = denoiser.vae.model
    for name, module in (("encoder", vae.encoder), ("decoder", vae.decoder), ("network", denoiser.network)):

        def count(module: torch.nn.Module, args: tuple, kwargs: dict, name: str = name) -> None:
            rows = len(args[0] if args else kwargs["hidden_states"])
            calls[name].append((rows, torch.is_grad_enabled()))

        module.register_forward_pre_hook(count, with_kwargs=True)
    return calls


@pytest.mark.parametrize("noises", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_step_encodes_once_and_never_decodes(folders, name, noises):
    denoiser, config = load_denoiser(folders[name]), dataclasses.replace(GUIDED, noises=noises)
    calls = counted(denoiser)
    for event in distill_image(denoiser, conditioned(denoiser, ["a", "b"]), config, "free", 3, 0.1, seeded(0)):
        assert event.image.shape == (2, 3, 16, 16)
    assert calls == {"encoder": [(2, True)] * 3, "decoder": [], "network": [(4 * noises, False)] * 3}
    parameters = [*denoiser.network.parameters(), *denoiser.vae.model.parameters()]
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in parameters)


@pytest.mark.parametrize("name", NAMES)
def test_sampling_decodes_each_image_once(folders, name):
    denoiser = load_denoiser(folders[name])
    calls = counted(denoiser)
    texts = denoiser.embed(["a", "b"]), denoiser.embed(["", ""])
    images = ancestral_sample(denoiser, *texts, 3.0, 5, seeded(0))
    assert images.shape == (2, 3, 16, 16) and images.min() >= 0 and images.max() <= 1 and torch.isfinite(images).all()
    assert calls == {"encoder": [], "decoder": [(1, False)] * 2, "network": [(4, False)] * 5}
    *_, last = ancestral_steps(denoiser, *texts, 3.0, 5, seeded(0))
    assert last.shape == (2, denoiser.channels, 8, 8)
    assert last.abs().max() > 1.2  # latents are not limited to [-1, 1]
    assert to_images(denoiser, last).equal(images)


def test_zero_terminal_snr_schedule_can_be_sampled(tmp_path):
    path = save(lambda: stable_diffusion(tmp_path, "v_prediction", rescale_betas_zero_snr=True), tmp_path / "m")
    denoiser = load_denoiser(path)
    assert denoiser.alpha_sigma(torch.ones(1)) == (0.0, 1.0)
    assert torch.isfinite(
        ancestral_sample(denoiser, denoiser.embed(["a"]), denoiser.embed([""]), 3.0, 4, seeded(0))
    ).all()
    certain = dataclasses.replace(GUIDED, t_min=1.0, t_max=1.0, t_max_end=1.0)
    assert torch.isfinite(gradient_of(denoiser, image_of(16), certain)).all()


def overflowing(tmp_path: Path, force_upcast: bool) -> Path:
    """An SDXL whose VAE, like the published one, has activations beyond float16's 65504 and latents within."""
    pipeline_folder = save(lambda: stable_diffusion_xl(tmp_path), tmp_path / "m")
    file = pipeline_folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["encoder.conv_in.weight"] *= 1e5
    save_file(tensors, file, metadata={"format": "pt"})
    config = pipeline_folder / "vae" / "config.json"
    config.write_text(
        config.read_text().replace('"force_upcast": true', f'"force_upcast": {str(force_upcast).lower()}')
    )
    return pipeline_folder


def test_force_upcast_vae_runs_in_float32(tmp_path):
    path = overflowing(tmp_path, force_upcast=True)
    denoiser = load_denoiser(path, dtype=torch.float16)
    assert denoiser.vae.dtype == torch.float32 and denoiser.network.dtype == torch.float16
    gradient = gradient_of(denoiser, image_of(16))
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0
    exact = load_denoiser(path)
    x = image_of(16) * 2 - 1
    assert denoiser.encode(x, seeded(0)).equal(exact.encode(x, seeded(0)))
    assert functional.cosine_similarity(gradient.flatten(), gradient_of(exact, image_of(16)).flatten(), dim=0) > FLOAT16


def test_unannounced_vae_overflow_is_an_error_with_advice(tmp_path):
    path = overflowing(tmp_path, force_upcast=False)
    with pytest.raises(RunError, match="VAE encoder returned NaN or infinity .*model.dtype to bfloat16 or float32"):
        gradient_of(load_denoiser(path, dtype=torch.float16), image_of(16))
    wide = load_denoiser(path, dtype=torch.bfloat16)
    assert wide.vae.dtype == torch.bfloat16 and torch.isfinite(gradient_of(wide, image_of(16))).all()


@pytest.fixture
def published(folders, tmp_path) -> Path:
    """A VAE configuration without `force_upcast`, as published with Stable Diffusion 1.5."""
    path = Path(shutil.copytree(folders["sd15"], tmp_path / "sd15"))
    file = path / "vae" / "config.json"
    file.write_text(
        json.dumps(
            {key: value for key, value in json.loads(file.read_text()).items() if key != "force_upcast"}
            | {"_diffusers_version": "0.6.0"}
        )
    )
    return path


@pytest.mark.parametrize("omega", [4.0, 1e8])
def test_float16_encoder_keeps_gradients_of_any_scale(published, omega):
    """The backward pass is linear, so a scale can be taken out before it and put back after it."""
    half = load_denoiser(published, dtype=torch.float16)
    assert half.vae.dtype == torch.float16
    image = image_of(16)
    config = dataclasses.replace(GUIDED, omega=omega)
    gradient, exact = gradient_of(half, image, config), gradient_of(load_denoiser(published), image, config)
    assert torch.isfinite(gradient).all()
    assert functional.cosine_similarity(gradient.flatten(), exact.flatten(), dim=0) > FLOAT16


@pytest.mark.parametrize(
    "name, setting",
    [("sd15", "attention_slicing"), ("sdxl", "attention_slicing"), ("sd3", "vae_recompute"), ("sd15", "vae_recompute")],
)
def test_memory_options_do_not_change_the_gradient(folders, name, setting):
    image = image_of(16).double()
    plain = gradient_of(in_float64(folders[name]), image)
    saving = gradient_of(in_float64(folders[name], ModelConfig(**{setting: True})), image)
    # Sums in another order. Networks in float64 return predictions in float32: 6e-8, times 1 + 2 omega = 9, is 5e-7.
    torch.testing.assert_close(saving, plain, rtol=0, atol=3e-6 * float(plain.abs().max()))


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd3"])
@pytest.mark.parametrize("kind", ["blocks", "leaves"])
def test_offloaded_network_computes_the_same(folders, name, kind, monkeypatch):
    """On a GPU the layers are copied from main memory. On a CPU only the copy calls are counted."""
    plain = gradient_of(load_denoiser(folders[name]), image_of(16))
    visits: list[int] = []
    onload = ModuleGroup.onload_
    monkeypatch.setattr(ModuleGroup, "onload_", lambda group: (visits.append(len(group.modules)), onload(group))[1])
    offloaded = load_denoiser(folders[name], config=ModelConfig(offload=kind))
    # The same operations in the same order are bitwise equal.
    torch.testing.assert_close(gradient_of(offloaded, image_of(16)), plain, rtol=0, atol=0)
    assert len(visits) >= {"blocks": 2, "leaves": 10}[kind]


def test_offloading_and_compiling_exclude_each_other(folders):
    with pytest.raises(ConfigError, match="model.offload blocks; allowed is one of them"):
        load_denoiser(folders["sd15"], config=ModelConfig(offload="blocks", compile="default"))


def test_slicing_is_enabled(folders):
    denoiser = load_denoiser(folders["sd15"], config=ModelConfig(attention_slicing=True))
    assert {type(processor).__name__ for processor in denoiser.network.attn_processors.values()} == {
        "SlicedAttnProcessor"
    }


def kept_bytes(denoiser: LatentDiffusion, views: int) -> int:
    """Bytes that autograd keeps after encoding, without the inputs."""
    known = {tensor.untyped_storage().data_ptr() for tensor in denoiser.vae.model.state_dict().values()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = image_of(16, views).requires_grad_(True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        z = denoiser.encode(x, seeded(0))
    assert z.requires_grad
    return sum(kept.values())


def test_recomputation_keeps_few_activations(folders):
    plain = load_denoiser(folders["sd15"])
    saving = load_denoiser(folders["sd15"], config=ModelConfig(vae_recompute=True))
    # The image is kept, which has 3 of the more than 100 channels of all layers.
    assert kept_bytes(saving, 3) < 0.1 * kept_bytes(plain, 3)
    rows = []
    saving.vae.model.encoder.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    gradient_of(saving, image_of(16))
    assert rows == [1, 1, 1, 1]  # two views forwards, and again on the way back, one at a time


def test_tiling_encodes_large_images_as_diffusers_does(folders):
    """Tiling is off by default. The tiny VAE's tiles are 16 pixels, so an image of 32 has several."""
    large = ModelConfig(image_size=32)
    plain = load_denoiser(folders["sd15"], config=large)
    tiled = in_float64(folders["sd15"], dataclasses.replace(large, vae_tiling=True))
    assert not plain.vae.model.use_tiling and plain.image_size == 32 and plain.latent_size == 16
    runs = []
    tiled.vae.model.encoder.register_forward_pre_hook(lambda *_: runs.append(1))
    vae = AutoencoderKL.from_pretrained(folders["sd15"] / "vae", low_cpu_mem_usage=False).double().eval()
    vae.enable_tiling()
    leaf = image_of(32).double().requires_grad_(True)
    expected = vae.encode(2 * leaf - 1).latent_dist.mean * vae.config.scaling_factor
    ours = tiled.encode(2 * leaf - 1, seeded(0))
    assert len(runs) == 9 and torch.isfinite(gradient_of(tiled, leaf.detach())).all()
    # Float64 on both sides; latents up to 4 and gradients below 1 are handed on in float32, with roundings of 6e-8.
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=1e-6)
    probe = torch.randn(expected.shape, generator=seeded(2)).double()
    gradients = [torch.autograd.grad((z * probe).sum(), leaf)[0] for z in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-6)


def test_sdxl_gets_the_image_size(folders):
    denoiser = load_denoiser(folders["sdxl"], config=ModelConfig(image_size=24))
    time_ids = []
    denoiser.network.register_forward_pre_hook(
        lambda _, args, kwargs: time_ids.append(kwargs["added_cond_kwargs"]["time_ids"]), with_kwargs=True
    )
    gradient_of(denoiser, image_of(10))
    assert time_ids[0].tolist() == [[24.0, 24.0, 0.0, 0.0, 24.0, 24.0]] * 4


@pytest.mark.parametrize(
    "name, method", [("sd15", "ancestral"), ("sd15", "sds"), ("sdxl", "ancestral"), ("sd3", "ancestral")]
)
def test_sample_command_with_a_latent_model(folders, tmp_path, name, method):
    parser = argparse.ArgumentParser()
    sample.add_arguments(parser.add_subparsers())
    out = tmp_path / "x.png"
    words = ["sample", "a red mushroom", "--out", out, "--model", folders[name], "--steps", 3, "--count", 2]
    args = parser.parse_args(list(map(str, [*words, "--method", method])))
    assert sample.run(args) == 0
    first = np.asarray(Image.open(out))
    assert first.shape == (16, 34, 3) and first.std() > 1
    assert sample.run(args) == 0
    assert np.array_equal(first, np.asarray(Image.open(out)))


@pytest.mark.parametrize("name", ["sd15", "sd3"])
def test_generate_command_with_a_latent_model(folders, tmp_path, name):
    out = tmp_path / "prop.ply"
    own = [setting for setting in QUICK if not setting.startswith("field.voxel")]  # these recipes have hash grids
    quick = (*own, "guidance.opposite_weight=0", "model.image_size=0")  # recipes fit the published sizes
    settings = [word for setting in quick for word in ("--set", setting)]
    assert main(["generate", "a red mushroom", "--out", str(out), "--model", str(folders[name]), *settings]) == 0
    assert out.stat().st_size > 500
