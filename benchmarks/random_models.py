# SPDX-License-Identifier: GPL-3.0-or-later
"""Denoisers of real architecture and size with random weights: enough to time and to weigh, nothing to download.

The sizes are those of the published configurations (block widths, attention heads, text widths), and the numbers of
weights agree: DeepFloyd IF-I-XL 4.3 G, Stable Diffusion 1.5's U-Net 860 M and its VAE 84 M.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from dreamwright.backend.config.schema import ModelConfig
from dreamwright.backend.guidance.denoisers.base import DenoiserParts
from dreamwright.backend.guidance.denoisers.latent import LatentDiffusion
from dreamwright.backend.guidance.denoisers.pixel import PixelDiffusion
from dreamwright.backend.guidance.noise_schedule import NoiseSchedule
from dreamwright.backend.models.acceleration import accelerate
from dreamwright.backend.models.vae import VAE
from dreamwright.backend.text.conditioning import Conditioning

TOKENS = 77  # of a prompt, for both families

IF_BLOCKS = {
    "in_channels": 3,
    "out_channels": 6,  # noise and variance
    "down_block_types": ("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 3),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": (*("SimpleCrossAttnUpBlock2D",) * 3, "ResnetUpsampleBlock2D"),
    "encoder_hid_dim_type": "text_proj",
    "addition_embed_type": "text",
    "act_fn": "gelu",
    "time_embedding_act_fn": "gelu",
    "cross_attention_norm": "group_norm",
    "resnet_time_scale_shift": "scale_shift",
    "resnet_skip_time_act": True,
    "resnet_out_scale_factor": 1.414,
}
VAE_BLOCKS = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
}


@dataclass(frozen=True)
class Size:
    """A model's architecture: diffusers' arguments `unet` and `vae`, and the width of its text encoder's states."""

    unet: dict[str, Any]
    text_width: int
    vae: dict[str, Any] | None = None
    schedule: dict[str, Any] = field(default_factory=lambda: {"beta_schedule": "squaredcos_cap_v2"})


STABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SIZES = {
    "if-xl": Size(
        {
            **IF_BLOCKS, "sample_size": 64, "block_out_channels": (704, 1408, 2112, 2816), "layers_per_block": 3,
            "attention_head_dim": 64, "cross_attention_dim": 2816, "encoder_hid_dim": 4096,
            "addition_embed_type_num_heads": 64,
        },
        4096,
    ),
    "sd-1.5": Size(
        {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},  # the rest are diffusers' defaults
        768,
        {**VAE_BLOCKS, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512},
        STABLE,
    ),
}  # fmt: skip
TINY = {
    "if-xl": Size(
        {
            **IF_BLOCKS, "sample_size": 16, "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1,
            "norm_num_groups": 4,
            "attention_head_dim": 8, "cross_attention_dim": 32, "encoder_hid_dim": 32,
            "addition_embed_type_num_heads": 2,
        },
        32,
    ),
    "sd-1.5": Size(
        {
            "sample_size": 8, "block_out_channels": (8, 8, 8, 8), "layers_per_block": 1,
            "norm_num_groups": 4,
            "cross_attention_dim": 16, "attention_head_dim": 2,
        },
        16,
        {
            **VAE_BLOCKS, "block_out_channels": (4, 4, 4, 4), "layers_per_block": 1, "norm_num_groups": 2,
            "sample_size": 64,
        },
        STABLE,
    ),
}  # fmt: skip


class RandomText:
    """A text side whose every prompt is noise of the right shape."""

    def __init__(self, width: int) -> None:
        self.width = width

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """One row for each prompt."""
        return Conditioning({"hidden": torch.randn(len(prompts), TOKENS, self.width)})

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


def random_denoiser(
    size: Size, device: torch.device, dtype: torch.dtype, config: ModelConfig
) -> PixelDiffusion | LatentDiffusion:
    """A denoiser of that size, on pixels or with a VAE on latents, treated as `guidance.loading` treats a real one.

    Raises ConfigError where `config` asks for a compilation that this machine cannot do.
    """
    torch.manual_seed(0)
    unet = frozen(UNet2DConditionModel, size.unet, device, dtype)
    unet.register_forward_hook(tame)
    alpha2 = DDPMScheduler(num_train_timesteps=1000, **size.schedule).alphas_cumprod.double()
    schedule = NoiseSchedule(alpha2.sqrt().float(), (1 - alpha2).sqrt().float(), torch.arange(1000), "epsilon")
    parts = DenoiserParts(unet, schedule, RandomText(size.text_width), AnyPrompt(), device, dtype)
    if size.vae is None:
        denoiser: PixelDiffusion | LatentDiffusion = PixelDiffusion(parts)
    else:
        vae = frozen(AutoencoderKL, size.vae, device, dtype)
        if config.vae_tiling:
            vae.enable_tiling()
        space = VAE(vae, 0.18215, 0.0, config.vae_recompute)
        latents = int(size.unet["sample_size"]) if config.image_size == 0 else config.image_size // space.factor
        denoiser = LatentDiffusion(parts, space, latents)
    if config.attention_slicing:
        denoiser.slice_attention()
    accelerate(denoiser.network, config)
    return denoiser


def weights(model: torch.nn.Module) -> int:
    """How many numbers it holds."""
    return sum(parameter.numel() for parameter in model.parameters())
