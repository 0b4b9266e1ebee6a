# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks on a GPU: half precision with a backward pass through the VAE, compiled, and kept in main memory."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from dreamwright.backend.config.schema import ModelConfig
from dreamwright.backend.guidance.denoisers.base import DiffusersDenoiser
from dreamwright.backend.guidance.denoisers.latent import LatentDiffusion
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.models.acceleration import missing_for_compiling
from tests.testing.tiny_families import write_family

CUDA = torch.device("cuda")

pytestmark = pytest.mark.usefixtures("plain_float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family("sd15", tmp_path_factory.mktemp("models"))


def inputs(denoiser: DiffusersDenoiser) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and times, the same on every device."""
    z = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    return z.to(denoiser.device), torch.linspace(0.1, 0.9, 4, device=denoiser.device)


def prediction(denoiser: DiffusersDenoiser) -> torch.Tensor:
    prompts = ["a red mushroom", "a blue chair", "a chair", ""]
    return denoiser.predict_raw(*inputs(denoiser), denoiser.embed(prompts)).cpu()


def encoding(denoiser: LatentDiffusion) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents of an image and the gradient of a weighted sum of them, of the size of an SDS gradient."""
    draw = torch.Generator().manual_seed(2)
    x = (2 * torch.rand(2, 3, 16, 16, generator=draw) - 1).to(denoiser.device).requires_grad_()
    z = denoiser.encode(x, torch.Generator())
    weight = torch.randn(z.shape, generator=draw).to(z)
    (gradient,) = torch.autograd.grad((weight * z).sum(), x)
    return z.detach().cpu(), gradient.cpu()


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The norm of the difference, relative to the reference's; not a number where one of them is not."""
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def latent(folder: Path, device: torch.device | str, dtype: torch.dtype) -> LatentDiffusion:
    denoiser = load_denoiser(folder, device, dtype)
    assert isinstance(denoiser, LatentDiffusion)
    return denoiser


def test_float16_encoder_has_the_gradient_of_float64(folder: Path) -> None:
    """A dozen layers whose roundings of 2^-11 = 5e-4 add up to 6e-3, and three times that for the way back."""
    half, reference = (encoding(latent(folder, *at)) for at in ((CUDA, torch.float16), ("cpu", torch.float64)))
    for ours, theirs in zip(half, reference, strict=True):
        assert torch.isfinite(ours).all()
        assert apart(ours, theirs) < 0.02


def test_float16_network_predicts_what_float64_predicts(folder: Path) -> None:
    """About thirty layers, each with a few roundings of 5e-4 in a random direction, and CFG's rows among them."""
    half, reference = (prediction(latent(folder, *at)) for at in ((CUDA, torch.float16), ("cpu", torch.float64)))
    assert apart(half, reference) < 0.02


@pytest.mark.parametrize("kind", ["blocks", "leaves"])
def test_offloaded_network_predicts_the_same(folder: Path, kind: str) -> None:
    """The same kernels on the same numbers: only the choice of a kernel could differ, by roundings of float32."""
    plain = prediction(load_denoiser(folder, CUDA, torch.float32))
    moved = load_denoiser(folder, CUDA, torch.float32, config=ModelConfig(offload=kind))
    assert {parameter.device.type for parameter in moved.network.parameters()} == {"cpu"}
    assert apart(prediction(moved), plain) < 1e-4


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_network_predicts_the_same(folder: Path, mode: str) -> None:
    """Fused kernels sum in another order: thirty layers of sums of at most 144 products, 144 x 6e-8 each."""
    if lacks := missing_for_compiling(CUDA):
        pytest.skip(f"torch.compile cannot be tested here: {lacks}")
    plain = prediction(load_denoiser(folder, CUDA, torch.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of torch's compiler differ between versions
        fast = load_denoiser(folder, CUDA, torch.float32, config=ModelConfig(compile=mode))
        for _ in range(3):  # CUDA graphs are recorded after the first calls
            predicted = prediction(fast)
        torch._dynamo.reset()
    assert apart(predicted, plain) < 1e-3
