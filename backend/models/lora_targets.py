# SPDX-License-Identifier: GPL-3.0-or-later
"""Which weights of a network a LoRA changes, and how many numbers that takes, from the headers of its files."""

from __future__ import annotations

import torch

from ..errors import ConfigError
from .parameter_counts import tensor_shapes
from .pipeline_folder import PipelineFolder

# All projections of diffusers' attention: as `LoRAAttnProcessor` had, also those of text that is added as keys and
# values (DeepFloyd IF) and those of a transformer with two streams (Stable Diffusion 3).
LORA_TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
)  # fmt: skip
MATRIX = 16  # numbers of a camera-to-world matrix


def lora_numbers(folder: PipelineFolder, rank: int, dtype: torch.dtype = torch.float32) -> int:
    """Numbers of a LoRA of that rank: rank (inputs + outputs) for each projection; 0 where there is none to change.

    Raises ModelError for a header that cannot be read.
    """
    numbers = 0
    for name, shape in tensor_shapes(folder, folder.network, dtype).items():
        layer = name.removesuffix(".weight")
        if name.endswith(".weight") and len(shape) == 2 and layer.endswith(tuple(f".{t}" for t in LORA_TARGETS)):
            numbers += rank * sum(shape)
    return numbers


def camera_numbers(folder: PipelineFolder) -> int:
    """Numbers of the embedding of cameras that a LoRA trains, a layer of 16 inputs and a square one, of time's width.

    0 for networks that are given cameras anyway, and for those of pixel-unshuffled images.
    """
    config = folder.config(folder.network)
    if folder.network == "transformer":
        width = int(config.get("num_attention_heads", 18)) * int(config.get("attention_head_dim", 64))
    elif config.get("class_embed_type") is not None or (folder.family.works_on_pixels and config["in_channels"] > 3):
        width = 0
    else:
        width = 4 * int(config.get("block_out_channels", (320,))[0])
    return width * (MATRIX + 1) + width * (width + 1)


def check_lora(folder: PipelineFolder, rank: int) -> None:
    """Raise ConfigError for a network that has no projection that a LoRA could change."""
    if lora_numbers(folder, rank) == 0:
        raise ConfigError(
            f"guidance.rule is vsd, but the {folder.network} of {folder.path} has no attention that a LoRA can change; "
            "allowed with this model are sds, csd and sdi; choose one of them"
        )
