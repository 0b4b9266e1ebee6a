# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers that a network and a VAE hold while they run on one image, by the rules that `memory_estimate` states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config.schema import Config
from .pipeline_folder import PipelineFolder

TEXT_TOKENS = 333  # of SD3's transformer: two CLIPs' 77 and T5's 256


def network_numbers(folder: PipelineFolder, config: Config) -> int:
    """Peak numbers of one image's forward pass."""
    network = folder.config(folder.network)
    size = _latent_size(folder, config, int(network.get("sample_size", 64)))
    if folder.family.name == "flow":
        width = int(network.get("num_attention_heads", 18)) * int(network.get("attention_head_dim", 64))
        return 10 * ((size // int(network.get("patch_size", 2))) ** 2 + TEXT_TOKENS) * width
    work, layers = _levels(network, size)
    skips = (
        work[0]
        + sum(count * numbers for count, numbers in zip(layers, work, strict=False))  # both come from the folder
        + sum(numbers // 4 for numbers in work[:-1])
    )
    return skips + (12 if folder.family.works_on_pixels else 21) * max(work)


def graph_numbers(folder: PipelineFolder, config: Config) -> int:
    """Numbers that the graph of one view keeps while a LoRA learns from it."""
    network = folder.config(folder.network)
    size, recompute = _latent_size(folder, config, int(network.get("sample_size", 64))), config.guidance.lora_recompute
    if folder.family.name == "flow":
        width = int(network.get("num_attention_heads", 18)) * int(network.get("attention_head_dim", 64))
        block = ((size // int(network.get("patch_size", 2))) ** 2 + TEXT_TOKENS) * width
        layers = int(network.get("num_layers", 18))
        return int(1.3 * layers + 12) * block if recompute else 12 * layers * block
    work, depths = _levels(network, size)
    every = sum((2 * count + 1) * numbers for count, numbers in zip(depths, work, strict=False))
    graph, kept = (13, 8) if folder.family.works_on_pixels else (36, 7)
    return kept * every + graph * (max(depths) + 1) * max(work) if recompute else graph * every


def vae_work(folder: PipelineFolder, config: Config) -> int:
    """sum_i(C_i h_i^2): numbers of one image that the encoder's levels hold, each counted once."""
    vae, network = folder.config("vae"), folder.config(folder.network)
    channels = [int(c) for c in vae.get("block_out_channels", (128, 256, 512, 512))]
    size = _latent_size(folder, config, int(network.get("sample_size", 64))) << (len(channels) - 1)
    return sum(c * (size >> level) ** 2 for level, c in enumerate(channels))


def _latent_size(folder: PipelineFolder, config: Config, own: int) -> int:
    """Pixels or latents a side of the network's input."""
    if not config.model.image_size or "vae" not in folder.classes:
        return own
    return config.model.image_size >> (len(folder.config("vae").get("block_out_channels", (0,) * 4)) - 1)


def _levels(network: Mapping[str, Any], size: int) -> tuple[list[int], list[int]]:
    """C_i h_i^2 of a U-Net's levels, and their layers."""
    channels = [int(c) for c in network.get("block_out_channels", (320, 640, 1280, 1280))]
    layers = network.get("layers_per_block", 2)
    return [c * (size >> level) ** 2 for level, c in enumerate(channels)], (
        [layers] * len(channels) if isinstance(layers, int) else list(layers)
    )
