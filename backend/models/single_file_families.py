# SPDX-License-Identifier: GPL-3.0-or-later
"""Families of checkpoints in a single file, and the configurations of their parts, which such a file does not hold.

Sources: the configurations of the published folders of Stable Diffusion 1.5, 2.1 and XL base 1.0, as public code states
them. Fields that are not listed have the library's defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Prediction = Literal["epsilon", "v"]
Layout = Literal["unet", "vae", "clip", "open_clip"]
PREDICTIONS: Mapping[Prediction, str] = {"epsilon": "epsilon", "v": "v_prediction"}  # as schedulers call them

UNET_PREFIX, EMA_PREFIX, VAE_PREFIX = "model.diffusion_model.", "model_ema.", "first_stage_model."
_TRAINED = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_LATENTS = {"in_channels": 4, "out_channels": 4, "norm_eps": 1e-5, "norm_num_groups": 32, "act_fn": "silu"}
_LEVELS = {
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "act_fn": "silu",
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
_CLIP = {
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "layer_norm_eps": 1e-5,
    "bos_token_id": 0,
    "eos_token_id": 2,  # as published; transformers then looks for the last token by its number
    "pad_token_id": 1,
}
_CLIP_L = {
    **_CLIP,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
_OPEN_CLIP_H = {  # without its last layer, whose output Stable Diffusion 2 does not read
    **_CLIP,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
}
_OPEN_CLIP_G = {
    **_CLIP,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}


@dataclass(frozen=True)
class SingleFilePart:
    """One network of a checkpoint: its class and configuration, and where its tensors lie under which names."""

    class_name: str
    config: Mapping[str, Any]
    layout: Layout
    prefix: str


@dataclass(frozen=True)
class SingleFileFamily:
    """A kind of checkpoint. `context` is the width of what its cross-attention reads, by which it is recognized.

    sizes: `sample_size` of the U-Net by prediction, where that differs. pads: the padding token of each tokenizer.
    like: the named model of the same size.
    """

    title: str
    pipeline: str
    context: int
    parts: Mapping[str, SingleFilePart]
    scheduler: tuple[str, Mapping[str, Any]]
    pads: Mapping[str, str]
    like: str
    options: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[Prediction, int] = field(default_factory=dict)
    prediction: Prediction | None = "epsilon"  # None: the family has both, and a file need not say which


def _unet(config: Mapping[str, Any]) -> SingleFilePart:
    return SingleFilePart("UNet2DConditionModel", {**_LATENTS, **config}, "unet", UNET_PREFIX)


def _vae(**config: Any) -> SingleFilePart:
    return SingleFilePart("AutoencoderKL", {**_VAE, **config}, "vae", VAE_PREFIX)


_DDIM = ("DDIMScheduler", {**_TRAINED, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1})
_EULER = ("EulerDiscreteScheduler", {**_TRAINED, "timestep_spacing": "leading", "steps_offset": 1})
_NO_CHECKER = {"requires_safety_checker": False}
SD1 = SingleFileFamily(
    title="Stable Diffusion 1.x",
    pipeline="StableDiffusionPipeline",
    context=768,
    parts={
        "unet": _unet({**_LEVELS, "sample_size": 64, "attention_head_dim": 8, "cross_attention_dim": 768}),
        "vae": _vae(sample_size=512, scaling_factor=0.18215),
        "text_encoder": SingleFilePart("CLIPTextModel", _CLIP_L, "clip", "cond_stage_model.transformer."),
    },
    scheduler=_DDIM,
    pads={"tokenizer": "<|endoftext|>"},
    like="sd-1.5",
    options=_NO_CHECKER,
)
SD2 = SingleFileFamily(
    title="Stable Diffusion 2.x",
    pipeline="StableDiffusionPipeline",
    context=1024,
    parts={
        "unet": _unet(
            {
                **_LEVELS,
                "sample_size": 96,
                "attention_head_dim": [5, 10, 20, 20],
                "cross_attention_dim": 1024,
                "use_linear_projection": True,
            }
        ),
        "vae": _vae(sample_size=768, scaling_factor=0.18215),
        "text_encoder": SingleFilePart("CLIPTextModel", _OPEN_CLIP_H, "open_clip", "cond_stage_model.model."),
    },
    scheduler=_DDIM,
    pads={"tokenizer": "!"},
    like="sd-2.1-base",
    options=_NO_CHECKER,
    sizes={"epsilon": 64, "v": 96},
    prediction=None,
)
SDXL = SingleFileFamily(
    title="Stable Diffusion XL",
    pipeline="StableDiffusionXLPipeline",
    context=2048,
    parts={
        "unet": _unet(
            {
                "sample_size": 128,
                "block_out_channels": [320, 640, 1280],
                "layers_per_block": 2,
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                "attention_head_dim": [5, 10, 20],
                "transformer_layers_per_block": [1, 2, 10],
                "cross_attention_dim": 2048,
                "use_linear_projection": True,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            }
        ),
        "vae": _vae(sample_size=1024, scaling_factor=0.13025, force_upcast=True),
        "text_encoder": SingleFilePart("CLIPTextModel", _CLIP_L, "clip", "conditioner.embedders.0.transformer."),
        "text_encoder_2": SingleFilePart(
            "CLIPTextModelWithProjection", _OPEN_CLIP_G, "open_clip", "conditioner.embedders.1.model."
        ),
    },
    scheduler=_EULER,
    pads={"tokenizer": "<|endoftext|>", "tokenizer_2": "!"},
    like="sdxl",
    options={"force_zeros_for_empty_prompt": True},
)
FAMILIES = (SD1, SD2, SDXL)
