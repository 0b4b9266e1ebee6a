# SPDX-License-Identifier: GPL-3.0-or-later
"""MVDream: every published tensor has its place, and answers and cameras are those of the published code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import load_file
from torch import Tensor

from dreamwright.backend.cameras.poses import Cameras, orbit_cameras
from dreamwright.backend.config.schema import GuidanceConfig, ModelConfig
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.guidance.denoisers.base import DenoiserParts
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.guidance.denoisers.multi_view_latent import VIEWS, MultiViewLatentDiffusion
from dreamwright.backend.guidance.interfaces import CameraAware, LatentDenoiser, NativeDenoiser
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.models.latent_diffusion_names import diffusers_name
from dreamwright.backend.models.mvdream_layout import diffusers_config
from dreamwright.backend.models.parameter_counts import resident_numbers
from dreamwright.backend.models.pipeline_folder import open_pipeline
from dreamwright.backend.text.prompts import PromptEmbeddings
from tests.testing.mvdream_reference import (
    PUBLISHED_CONFIG,
    TINY_CONFIG,
    camera_matrices,
    published_network,
    published_shapes,
    random_weights,
)
from tests.testing.tiny_mvdream import WEIGHTS, write_mvdream

SET = [0.0, 90.0, 180.0, 270.0]
PROMPT = "a red chair"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mvdream(tmp_path_factory.mktemp("models") / "mvdream")


@pytest.fixture(scope="module")
def denoiser(folder: Path) -> MultiViewLatentDiffusion:
    loaded = load_denoiser(folder)
    assert isinstance(loaded, MultiViewLatentDiffusion)
    return loaded


def diffusers_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of diffusers' network, which is not filled."""
    with torch.device("meta"):
        network = UNet2DConditionModel.from_config(config)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def test_every_published_tensor_has_one_place_of_its_shape() -> None:
    shapes = published_shapes(PUBLISHED_CONFIG)
    mapped = [(diffusers_name(name, 2), shape) for name, shape in shapes.items()]
    assert len(dict(mapped)) == len(mapped) == 690
    assert dict(mapped) == diffusers_shapes(diffusers_config(PUBLISHED_CONFIG, "it"))
    camera = 16 * 1280 + 1280 + 1280 * 1280 + 1280
    numbers = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert numbers - camera == 865_910_724, "the U-Net of Stable Diffusion 2 has so many parameters"


def test_places_are_those_of_diffusers_own_converter() -> None:
    """The converter of single files, which knows all but the camera's layers; values tell tensors apart."""
    weights = random_weights(TINY_CONFIG)
    config = diffusers_config(TINY_CONFIG, "it") | {"class_embed_type": None}
    converted = convert_ldm_unet_checkpoint({f"model.diffusion_model.{k}": v for k, v in weights.items()}, config)
    places = {diffusers_name(name, 1): tensor for name, tensor in weights.items() if "camera_embed" not in name}
    assert places.keys() == converted.keys()
    assert all(torch.equal(tensor, converted[name]) for name, tensor in places.items())


@pytest.mark.parametrize(
    "name",
    [
        "input_blocks.0.0", "input_blocks.0.1.norm.weight", "input_blocks.00.0.weight", "input_blocks.2.0.other.weight",
        "input_blocks.1.2.norm.weight", "output_blocks.0.1.conv.weight", "output_blocks.1.0.conv.weight",
        "middle_block.3.norm.weight", "middle_block.0.other.weight", "model.diffusion_model.out.2.weight",
        "label_emb.0.0.weight", "image_embed.latents", "out.2.scale",
    ],
)  # fmt: skip
def test_other_names_have_no_place(name: str) -> None:
    assert diffusers_name(name, 1) not in diffusers_shapes(diffusers_config(TINY_CONFIG, "it"))


@torch.no_grad()
def test_the_network_answers_as_the_published_one(denoiser: MultiViewLatentDiffusion, folder: Path) -> None:
    weights = {name: tensor.double() for name, tensor in load_file(folder / WEIGHTS).items()}
    network = UNet2DConditionModel.from_config(diffusers_config(TINY_CONFIG, "it")).double().eval()
    network.load_state_dict({diffusers_name(name, 1): tensor for name, tensor in weights.items()})
    double = MultiViewLatentDiffusion(denoiser_parts(denoiser, network), denoiser.vae, denoiser.latent_size)
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(2 * VIEWS, 4, 8, 8, generator=generator, dtype=torch.float64)
    text = torch.randn(2 * VIEWS, 5, 16, generator=generator, dtype=torch.float64)
    camera = torch.cat([camera_matrices(VIEWS, 15.0, 20.0), camera_matrices(VIEWS, 30.0)])
    time = torch.tensor([981.0] * VIEWS + [20.0] * VIEWS)
    for pose, views in ((camera, VIEWS), (camera, 2), (None, 1)):
        given = {"hidden": text, "together": torch.full((2 * VIEWS,), views)} | ({} if pose is None else {"pose": pose})
        got = double.network_output(z, time, given)
        wanted = published_network(TINY_CONFIG, weights, z, time, text, pose, views)
        assert wanted.std() > 0.1 and not torch.allclose(wanted[:4], wanted[4:])
        # All in float64 but the sinusoids of time, which diffusers computes in float32: 6e-8 of angles up to 1e3.
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)
    published = published_network(TINY_CONFIG, weights, z, time, text, camera, VIEWS)
    for other, views in ((camera, 1), (camera.flip(0), VIEWS), (None, VIEWS)):
        changed = published_network(TINY_CONFIG, weights, z, time, text, other, views)
        assert (changed - published).abs().max() > 0.05, "joined attention and cameras must matter"


def denoiser_parts(denoiser: MultiViewLatentDiffusion, network: torch.nn.Module) -> DenoiserParts:
    return DenoiserParts(network, denoiser._schedule, denoiser.text, denoiser._reader, "cpu", torch.float64)


def test_loaded_weights_are_the_files(denoiser: MultiViewLatentDiffusion, folder: Path) -> None:
    inside = {name.replace("class_embedding.inner.", "class_embedding."): tensor
              for name, tensor in denoiser.network.state_dict().items()}  # fmt: skip
    files = load_file(folder / WEIGHTS)
    assert {diffusers_name(name, 1) for name in files} == inside.keys()
    assert all(torch.equal(inside[diffusers_name(name, 1)], tensor) for name, tensor in files.items())
    tensors = [*denoiser.network.parameters(), *denoiser.network.buffers()]
    assert not any(tensor.is_meta or tensor.requires_grad for tensor in tensors) and not denoiser.network.training
    half = load_denoiser(folder, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in half.network.parameters()} == {torch.bfloat16}
    assert isinstance(denoiser, (NativeDenoiser)) and isinstance(denoiser, LatentDenoiser)
    assert isinstance(denoiser, CameraAware) and (denoiser.image_size, denoiser.latent_size) == (16, 8)


def poses_of(denoiser: MultiViewLatentDiffusion, cameras: Cameras) -> Tensor:
    return denoiser.with_cameras(denoiser.embed([PROMPT] * len(cameras)), cameras).tensors["pose"]


@pytest.mark.parametrize("elevation", [0.0, 15.0, 30.0, -10.0, 80.0])
def test_four_orthogonal_cameras_have_mvdreams_matrices(denoiser: MultiViewLatentDiffusion, elevation: float) -> None:
    """Our front, azimuth 0 at -Y, is MVDream's azimuth 90; both count to the left of the object's front."""
    for first in (0.0, 37.0, 200.0):
        cameras = orbit_cameras([first + angle for angle in SET], elevation, 2.0, 1.5)
        wanted = camera_matrices(4, elevation, start=first + 90.0)
        # sines and cosines of angles of up to 10 radians in float32: an angle is off by 5e-7 at most
        torch.testing.assert_close(poses_of(denoiser, cameras).double(), wanted, rtol=0, atol=2e-6)
    front = poses_of(denoiser, orbit_cameras(SET, 0.0, 2.0, 1.5))[0].view(4, 4)
    # By hand: the front is seen from +X; right is +Y, up +Z, back +X.
    torch.testing.assert_close(front, torch.tensor([[0.0, 0, 1, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
                               rtol=0, atol=1e-6)  # fmt: skip


def predict(denoiser: MultiViewLatentDiffusion, z: Tensor, cameras: Cameras) -> Tensor:
    conditioning = denoiser.with_cameras(denoiser.embed([PROMPT] * len(z)), cameras)
    return denoiser.predict_raw(z, torch.full((len(z),), 0.6), conditioning)


def test_a_view_depends_on_its_camera_and_on_its_set(denoiser: MultiViewLatentDiffusion) -> None:
    z = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    cameras = orbit_cameras([*SET, 45, 135, 225, 315], [10.0] * 4 + [30.0] * 4, 2.0, 1.5)
    before = predict(denoiser, z, cameras)
    changed = z.clone()
    changed[1] += 1
    moved = (predict(denoiser, changed, cameras) - before).abs().amax((1, 2, 3))
    assert (moved[:4] > 1e-4).all() and (moved[4:] == 0).all()
    # One noise and one prompt: the answers of the four cameras differ by the cameras alone.
    same = predict(denoiser, z[:1].expand(4, -1, -1, -1), cameras[slice(0, 4)])
    assert all((same[i] - same[j]).abs().max() > 1e-3 for i in range(4) for j in range(i))


def test_views_that_are_no_set_are_single_images_without_a_camera(denoiser: MultiViewLatentDiffusion) -> None:
    z = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(6))
    for azimuths in ([0.0, 90, 180], [0.0, 90, 180, 200], [0.0]):
        rows = z[: len(azimuths)]
        together = predict(denoiser, rows, orbit_cameras(azimuths, 10.0, 2.0, 1.5))
        embedded = denoiser.embed([PROMPT])
        alone = torch.cat([denoiser.predict_raw(row[None], torch.tensor([0.6]), embedded) for row in rows])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)  # float32 sums in another order, answers near 1


def test_a_step_asks_once_about_whole_sets(denoiser: MultiViewLatentDiffusion) -> None:
    config = GuidanceConfig(omega=49.0, noises=2, view_dependent=False)
    cameras = orbit_cameras([*SET, 45, 135, 225, 315], [10.0] * 4 + [30.0] * 4, 2.0, 1.5)
    conditioning = PromptEmbeddings(denoiser, PROMPT, config).for_cameras(cameras.azimuth, cameras.elevation)
    calls: list[dict[str, Any]] = []
    hook = denoiser.network.register_forward_hook(
        lambda module, args, kwargs, output: calls.append({"time": args[1], **kwargs}), with_kwargs=True
    )
    image = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    result = ScoreDistillation(denoiser, config).gradient(
        image, cameras, conditioning, torch.Generator().manual_seed(0), 0.5
    )
    hook.remove()
    assert len(calls) == 1 and calls[0]["cross_attention_kwargs"] == {"views": VIEWS}
    assert torch.equal(calls[0]["class_labels"], poses_of(denoiser, cameras).repeat(4, 1))  # 2 prompts, 2 noises
    times = calls[0]["time"].view(-1, VIEWS)
    assert (times == times[:, :1]).all() and len(times[:, 0].unique()) == 4  # one of each set and noise
    assert torch.isfinite(result.gradient).all() and (result.gradient.flatten(1).norm(dim=1) > 0).all()


def test_the_gradient_is_that_of_the_published_loss(denoiser: MultiViewLatentDiffusion) -> None:
    """Half of the squared distance of the latents to a constant x0, rescaled by deviations over each set of four.

    With w(t) = 1 it is alpha / sigma of that.
    """
    config = GuidanceConfig(omega=49.0, weighting="uniform", rescale=0.5, view_dependent=False)
    cameras = orbit_cameras([*SET, 45, 135, 225, 315], [10.0] * 4 + [30.0] * 4, 2.0, 1.5)
    conditioning = PromptEmbeddings(denoiser, PROMPT, config).for_cameras(cameras.azimuth, cameras.elevation)
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    hook = denoiser.network.register_forward_hook(lambda module, args, output: seen.append((*args, output[0])))
    image = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    got = ScoreDistillation(denoiser, config).gradient(
        image, cameras, conditioning, torch.Generator().manual_seed(1), 0.0
    )
    hook.remove()
    ((z, time, output),) = seen
    # Stable Diffusion's schedule: sqrt(beta) is linear from sqrt(0.00085) to sqrt(0.012).
    kept = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)[time[:8].long()]
    alpha, sigma = (share.sqrt().view(8, 1, 1, 1) for share in (kept, 1 - kept))
    of_prompt, without = output.double().chunk(2)
    clean, guided = ((z[:8].double() - sigma * e) / alpha for e in (of_prompt, without + 50 * (of_prompt - without)))
    deviations = [x0.reshape(2, -1).std(1).repeat_interleave(4).view(8, 1, 1, 1) for x0 in (clean, guided)]
    target = 0.5 * guided * deviations[0] / deviations[1] + 0.5 * guided
    leaf = image.clone().requires_grad_()
    (0.5 * (denoiser.encode(2 * leaf - 1, torch.Generator()).double() - target).square().sum()).backward()
    assert leaf.grad is not None
    wanted = (leaf.grad * alpha / sigma).float()
    for own, published in zip(got.gradient.split(4), wanted.split(4), strict=True):  # each set has its time
        size = float(published.abs().max())
        assert size > 1e-2
        # float32: x0 = (z - sigma e) / alpha loses up to 1 / alpha in digits, and deviations are of 1024 numbers
        torch.testing.assert_close(own, published, rtol=0, atol=1e-4 * size)


def test_blocks_that_stay_on_the_device_are_the_loaded_networks(
    denoiser: MultiViewLatentDiffusion, folder: Path
) -> None:
    network: Any = denoiser.network
    blocks = [sum(p.numel() for p in block.parameters()) for block in (*network.down_blocks, *network.up_blocks)]
    everything = sum(p.numel() for p in network.parameters())
    opened = open_pipeline(folder)
    assert resident_numbers(opened, "unet", "off") == everything
    assert resident_numbers(opened, "unet", "blocks") == everything - sum(blocks) + max(blocks)


def test_slices_would_not_join_the_views(folder: Path) -> None:
    with pytest.raises(ConfigError, match="slices do not join"):
        load_denoiser(folder, config=ModelConfig(attention_slicing=True))
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "MVDreamPipeline"
