# SPDX-License-Identifier: GPL-3.0-or-later
"""Architectures of the published models, and tiny ones with the same kinds of layers, for `random_models`.

Sources: the published configurations, as `backend/models/single_file_families.py`, `backend/models/mvdream_layout.py`
and diffusers' defaults have them. Numbers of weights are in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["pixel", "latent", "sdxl", "flow", "multi-view"]  # of recipes, and which denoiser runs it

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
XL_BLOCKS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
}
MVDREAM_BLOCKS = {
    "use_linear_projection": True,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 16,
}
VAE_BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
VAE = {**VAE_BLOCKS, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4}
TINY_VAE = {
    **VAE_BLOCKS, "block_out_channels": (4, 4, 4, 4), "layers_per_block": 1, "norm_num_groups": 2,
    "latent_channels": 4, "sample_size": 64,
}  # fmt: skip
XL_FACTORS = {"scaling_factor": 0.13025, "force_upcast": True}
SD3_FACTORS = {
    "latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609, "use_quant_conv": False,
    "use_post_quant_conv": False, "force_upcast": True,
}  # fmt: skip
STABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@dataclass(frozen=True)
class Size:
    """A model's architecture: diffusers' arguments `network` and `vae`; tokens and widths of its text; its schedule."""

    kind: Kind
    network: dict[str, Any]
    text_width: int
    vae: dict[str, Any] | None = None
    schedule: dict[str, Any] = field(default_factory=lambda: STABLE)
    tokens: int = 77
    pooled: int = 0  # width of the pooled text, 0 where there is none


COSINE = {"beta_schedule": "squaredcos_cap_v2"}
SIZES = {
    "if-xl": Size(
        "pixel",
        {
            **IF_BLOCKS, "sample_size": 64, "block_out_channels": (704, 1408, 2112, 2816), "layers_per_block": 3,
            "attention_head_dim": 64, "cross_attention_dim": 2816, "encoder_hid_dim": 4096,
            "addition_embed_type_num_heads": 64,
        },
        4096,
        schedule=COSINE,
    ),
    "sd-1.5": Size(
        "latent",
        {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},  # the rest are diffusers' defaults
        768,
        {**VAE, "sample_size": 512},
    ),
    "sdxl": Size(
        "sdxl",
        {
            **XL_BLOCKS, "sample_size": 128, "block_out_channels": (320, 640, 1280), "attention_head_dim": (5, 10, 20),
            "transformer_layers_per_block": (1, 2, 10), "cross_attention_dim": 2048, "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        2048,
        {**VAE, **XL_FACTORS, "sample_size": 1024},
        pooled=1280,
    ),
    "sd-3": Size(
        "flow",
        {
            "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24,
            "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096,
            "caption_projection_dim": 1536, "pooled_projection_dim": 2048, "pos_embed_max_size": 192,
        },
        4096,
        {**VAE, **SD3_FACTORS, "sample_size": 1024},
        tokens=77 + 256,  # CLIP's and T5's
        pooled=2048,
    ),
    "mvdream": Size(
        "multi-view",
        {**MVDREAM_BLOCKS, "sample_size": 32, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20)},
        1024,
        {**VAE, "sample_size": 256},
    ),
}  # fmt: skip
TINY_UNET = {"sample_size": 8, "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 16}
TINY = {
    "if-xl": Size(
        "pixel",
        {
            **IF_BLOCKS, "sample_size": 16, "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1,
            "norm_num_groups": 4, "attention_head_dim": 8, "cross_attention_dim": 32, "encoder_hid_dim": 32,
            "addition_embed_type_num_heads": 2,
        },
        32,
        schedule=COSINE,
    ),
    "sd-1.5": Size(
        "latent", {**TINY_UNET, "block_out_channels": (8, 8, 8, 8), "attention_head_dim": 2}, 16, TINY_VAE
    ),
    "sdxl": Size(
        "sdxl",
        {
            **XL_BLOCKS, **TINY_UNET, "block_out_channels": (8, 8, 8), "attention_head_dim": 2,
            "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 8 + 6 * 8,
        },
        16,
        {**TINY_VAE, **XL_FACTORS},
        pooled=8,
    ),
    "sd-3": Size(
        "flow",
        {
            "sample_size": 8, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 2,
            "attention_head_dim": 8, "num_attention_heads": 4, "joint_attention_dim": 32,
            "caption_projection_dim": 32, "pooled_projection_dim": 16, "pos_embed_max_size": 12,
        },
        32,
        {**TINY_VAE, **SD3_FACTORS},
        tokens=12,
        pooled=16,
    ),
    "mvdream": Size(
        "multi-view",
        {**MVDREAM_BLOCKS, **TINY_UNET, "block_out_channels": (8, 8, 8, 8), "attention_head_dim": 2},
        16,
        TINY_VAE,
    ),
}  # fmt: skip
