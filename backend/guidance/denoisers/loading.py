# SPDX-License-Identifier: GPL-3.0-or-later
"""From a pipeline folder to the denoiser of its family: everything is checked before a weight is read."""

from __future__ import annotations

from pathlib import Path

import torch

from ...config.schema import ModelConfig
from ...errors import ConfigError
from ...models.acceleration import accelerate
from ...models.lora_files import Lora, add_loras, open_loras
from ...models.pipeline_folder import PipelineFolder, load_model, open_pipeline
from ...models.vae import load_vae
from ...text.conditioning import TextEncoder
from ...text.encoder import PipelineTextEncoder
from ...text.tokenization import PromptTokenizer
from ..noise_schedule import read_schedule
from .base import DenoiserParts, DiffusersDenoiser, square_size
from .flow import FlowTransformer, check_transformer
from .latent import LatentDiffusion, check_unet, chosen_latent_size
from .multi_view import MultiViewPixelDiffusion
from .multi_view_latent import MultiViewLatentDiffusion, check_multi_view_unet
from .pixel import PixelDiffusion
from .sdxl import SdxlDiffusion, check_sdxl

PIXEL_CLASSES = {"pixel": PixelDiffusion, "multi-view": MultiViewPixelDiffusion}
LATENT_CLASSES = {
    "latent": LatentDiffusion,
    "multi-view-latent": MultiViewLatentDiffusion,
    "sdxl": SdxlDiffusion,
    "flow": FlowTransformer,
}


def load_denoiser(
    folder: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    cache: str | Path | None = None,
    config: ModelConfig = ModelConfig(),
    text: TextEncoder | None = None,
) -> DiffusersDenoiser:
    """The denoiser of a pipeline folder, from disk and never from a network, by the class in its model_index.json.

    `dtype` None means what `config` says. `cache` is a folder for text embeddings (None: none on disk). `text` embeds
    prompts instead of encoders in this process. Raises ModelError naming what is wrong and what is supported, and
    ConfigError for settings that the model cannot follow.
    """
    opened = open_pipeline(folder)
    loras = open_loras(config.loras, opened)  # refused for a pixel model
    dtype = chosen_dtype(config, device) if dtype is None else dtype
    if opened.family.works_on_pixels:
        denoiser: DiffusersDenoiser = _pixel(opened, device, dtype, cache, config, text)
    else:
        denoiser = _latent(opened, device, dtype, cache, config, text, loras)
    if config.attention_slicing:
        denoiser.slice_attention()
    if config.offload != "off":
        denoiser.offload(config.offload)
    accelerate(denoiser.network, config)
    return denoiser


def chosen_dtype(config: ModelConfig, device: torch.device | str) -> torch.dtype:
    """The network's dtype: "auto" is float16 on a GPU, whose 11 bits CFG at large omega needs more than range."""
    if config.dtype == "auto":
        return torch.float32 if torch.device(device).type == "cpu" else torch.float16
    return getattr(torch, config.dtype)


def _stored(config: ModelConfig, device: torch.device | str) -> torch.device | str:
    """Where the network's weights are while nothing is predicted."""
    return device if config.offload == "off" else "cpu"


def _pixel(
    opened: PipelineFolder,
    device: torch.device | str,
    dtype: torch.dtype,
    cache: str | Path | None,
    config: ModelConfig,
    text: TextEncoder | None,
) -> PixelDiffusion:
    denoiser = PIXEL_CLASSES[opened.family.name].load(opened.path, device, dtype, cache, text, _stored(config, device))
    if config.image_size not in (0, denoiser.image_size):
        raise ConfigError(
            f"model.image_size {config.image_size}; allowed for {opened.path.name} are 0 and {denoiser.image_size}, "
            "as a pixel model has one size; change it"
        )
    return denoiser


def _latent(
    opened: PipelineFolder,
    device: torch.device | str,
    dtype: torch.dtype,
    cache: str | Path | None,
    config: ModelConfig,
    text: TextEncoder | None,
    loras: tuple[Lora, ...],
) -> LatentDiffusion:
    name = opened.family.name
    own, vae = square_size(opened), opened.config("vae")
    factor = 2 ** (len(vae.get("block_out_channels", (0,))) - 1)
    patch = int(opened.config("transformer").get("patch_size", 2)) if name == "flow" else 1
    latent_size = chosen_latent_size(opened, own, factor, config.image_size, patch)
    if name == "flow":
        check_transformer(opened, latent_size)
    elif name == "sdxl":
        check_sdxl(opened)
    elif name == "multi-view-latent":
        check_multi_view_unet(opened, dtype)
    else:
        check_unet(opened)
    schedule = read_schedule(opened, image_tokens=(latent_size // patch) ** 2)
    if text is None:
        text = PipelineTextEncoder(opened, device, dtype, cache, loras=loras)
    reader = text.reader if isinstance(text, PipelineTextEncoder) else PromptTokenizer(opened)
    vae_model = load_vae(opened, device, dtype, config.vae_tiling, config.vae_recompute)
    network = load_model(opened, opened.network, dtype, _stored(config, device))
    add_loras(network, opened.network, loras)
    return LATENT_CLASSES[name](DenoiserParts(network, schedule, text, reader, device, dtype), vae_model, latent_size)
