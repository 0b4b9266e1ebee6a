# SPDX-License-Identifier: GPL-3.0-or-later
"""Denoisers of real architecture and size with random weights: enough to time and to weigh, nothing to download.

`random_sizes` has the published configurations, and the numbers of weights agree: DeepFloyd IF-I-XL 4.3 G, Stable
Diffusion 1.5's U-Net 860 M and its VAE 84 M, SDXL's U-Net 2.6 G, Stable Diffusion 3's transformer 2.0 G.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from random_sizes import SIZES, TINY, Size
from torch import Tensor

from dreamwright.backend.config.schema import ModelConfig
from dreamwright.backend.guidance.denoisers.base import DenoiserParts
from dreamwright.backend.guidance.denoisers.flow import FlowTransformer
from dreamwright.backend.guidance.denoisers.latent import LatentDiffusion
from dreamwright.backend.guidance.denoisers.multi_view_latent import MultiViewLatentDiffusion
from dreamwright.backend.guidance.denoisers.pixel import PixelDiffusion
from dreamwright.backend.guidance.denoisers.sdxl import SdxlDiffusion
from dreamwright.backend.guidance.noise_schedule import NoiseSchedule
from dreamwright.backend.models.acceleration import accelerate
from dreamwright.backend.models.vae import VAE
from dreamwright.backend.text.conditioning import Conditioning

__all__ = ["SIZES", "TINY", "Size", "network_class", "random_denoiser", "weights"]

LATENT_CLASSES = {
    "latent": LatentDiffusion,
    "sdxl": SdxlDiffusion,
    "flow": FlowTransformer,
    "multi-view": MultiViewLatentDiffusion,
}


class RandomText:
    """A text side whose every prompt is noise of the right shape."""

    def __init__(self, size: Size) -> None:
        self.size = size

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """One row for each prompt."""
        size = self.size
        hidden = {"hidden": torch.randn(len(prompts), size.tokens, size.text_width)}
        return Conditioning(hidden | ({"pooled": torch.randn(len(prompts), size.pooled)} if size.pooled else {}))

    def free(self) -> None:
        """There is nothing to free."""


class AnyPrompt:
    """A reader that takes every prompt as it is."""

    def check(self, prompt: str) -> list[str]:
        return []


def frozen(kind: Any, config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    """A model with torch's default initialization, made on the device in its final dtype, without a float32 copy."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return kind(**config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(default)


def tame(network: torch.nn.Module, inputs: Any, output: Any) -> tuple[Tensor, ...]:
    """A forward hook: random weights may overflow in half precision, and values decide nothing about time."""
    return tuple(0.1 * torch.nan_to_num(part, 0.0, 0.0, 0.0) for part in output)


def network_class(size: Size) -> Any:
    """diffusers' class of the network."""
    return SD3Transformer2DModel if size.kind == "flow" else UNet2DConditionModel


def random_schedule(size: Size) -> NoiseSchedule:
    """The noise levels of the published scheduler: Stable Diffusion 3's shift of 3, or the betas of the size."""
    if size.kind == "flow":
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
        sigma, times = scheduler.sigmas[:1000].flip(0).float(), scheduler.timesteps.flip(0).float()
        return NoiseSchedule(1 - sigma, sigma, times, "flow")
    alpha2 = DDPMScheduler(num_train_timesteps=1000, **size.schedule).alphas_cumprod.double()
    return NoiseSchedule(alpha2.sqrt().float(), (1 - alpha2).sqrt().float(), torch.arange(1000), "epsilon")


def random_denoiser(
    size: Size, device: torch.device, dtype: torch.dtype, config: ModelConfig
) -> PixelDiffusion | LatentDiffusion:
    """A denoiser of that size, on pixels or with a VAE on latents, treated as `denoisers.loading` treats a real one.

    Raises ConfigError where `config` asks for a compilation that this machine cannot do.
    """
    torch.manual_seed(0)
    network = frozen(network_class(size), size.network, device, dtype)
    network.register_forward_hook(tame)
    parts = DenoiserParts(network, random_schedule(size), RandomText(size), AnyPrompt(), device, dtype)
    if size.vae is None:
        denoiser: PixelDiffusion | LatentDiffusion = PixelDiffusion(parts)
    else:
        vae = frozen(AutoencoderKL, size.vae, device, torch.float32 if size.vae.get("force_upcast") else dtype)
        if config.vae_tiling:
            vae.enable_tiling()
        factors = float(size.vae.get("scaling_factor", 0.18215)), float(size.vae.get("shift_factor", 0.0))
        space = VAE(vae, *factors, config.vae_recompute)
        latents = int(size.network["sample_size"]) if config.image_size == 0 else config.image_size // space.factor
        denoiser = LATENT_CLASSES[size.kind](parts, space, latents)
    if config.attention_slicing:
        denoiser.slice_attention()
    if config.offload != "off":
        denoiser.offload(config.offload)
    accelerate(denoiser.network, config)
    return denoiser


def weights(model: torch.nn.Module) -> int:
    """How many numbers it holds."""
    return sum(parameter.numel() for parameter in model.parameters())
