# SPDX-License-Identifier: GPL-3.0-or-later
"""Random latent pipelines of a few thousand weights, built from diffusers classes and saved by save_pretrained."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

LETTERS = string.ascii_lowercase + string.digits + ",.-"
# Stable Diffusion's own training schedule, which its scheduler_config.json writes down.
LINEAR = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """One token per letter, in the old two-file layout of hub models."""
    folder.mkdir(parents=True)
    tokens = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    described = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return CLIPTokenizer.from_pretrained(folder)


def t5_tokenizer() -> T5TokenizerFast:
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    return T5TokenizerFast(vocab=vocabulary, extra_ids=0, model_max_length=512)


def clip_encoder(kind: type, width: int, layers: int = 2, projection: int = 8) -> Any:
    end = 2 * len(LETTERS) + 1
    return kind(
        CLIPTextConfig(
            vocab_size=end + 1,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            max_position_embeddings=77,
            projection_dim=projection,
            bos_token_id=end - 1,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def vae(channels: int, **config: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=16,
        latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        **config,
    )


def unet(**config: Any) -> UNet2DConditionModel:
    defaults = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
    }
    return UNet2DConditionModel(**{**defaults, **config})


def stable_diffusion(work: Path, prediction_type: str = "epsilon", **scheduling: Any) -> StableDiffusionPipeline:
    """1.5's parts for epsilon, 2.1's schedule for v_prediction."""
    if prediction_type == "epsilon" and not scheduling:
        scheduler: Any = PNDMScheduler(**LINEAR, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False)
    else:
        scheduler = DDIMScheduler(
            **LINEAR, prediction_type=prediction_type, clip_sample=False, steps_offset=1, **scheduling
        )
    return StableDiffusionPipeline(
        vae=vae(4),
        text_encoder=clip_encoder(CLIPTextModel, 16),
        tokenizer=clip_tokenizer(work / "clip"),
        unet=unet(cross_attention_dim=16),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(work: Path, force_zeros: bool = True) -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline(
        vae=vae(4, scaling_factor=0.13025, force_upcast=True),
        text_encoder=clip_encoder(CLIPTextModel, 16),
        text_encoder_2=clip_encoder(CLIPTextModelWithProjection, 8),
        tokenizer=clip_tokenizer(work / "clip"),
        tokenizer_2=clip_tokenizer(work / "clip2"),
        unet=unet(
            cross_attention_dim=24,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=8 + 6 * 8,
            use_linear_projection=True,
        ),
        scheduler=EulerDiscreteScheduler(**LINEAR, timestep_spacing="leading", steps_offset=1),
        force_zeros_for_empty_prompt=force_zeros,
    )


def stable_diffusion_3(work: Path, t5: bool = True, **scheduling: Any) -> StableDiffusion3Pipeline:
    text = T5Config(
        vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=32,
            caption_projection_dim=32,
            pooled_projection_dim=16,
            pos_embed_max_size=12,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduling}),
        vae=vae(
            16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
            force_upcast=True,
        ),
        text_encoder=clip_encoder(CLIPTextModelWithProjection, 8),
        text_encoder_2=clip_encoder(CLIPTextModelWithProjection, 16),
        text_encoder_3=T5EncoderModel(text) if t5 else None,
        tokenizer=clip_tokenizer(work / "clip"),
        tokenizer_2=clip_tokenizer(work / "clip2"),
        tokenizer_3=t5_tokenizer() if t5 else None,
    )


FAMILIES = {
    "sd15": stable_diffusion,
    "sd21": lambda work: stable_diffusion(work, "v_prediction"),
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3,
    "sd3-without-t5": lambda work: stable_diffusion_3(work, t5=False),
}


def write_family(name: str, work: Path) -> Path:
    """Build the pipeline and save it; the same name gives the same weights. Returns its folder."""
    return save(lambda: FAMILIES[name](work / "parts"), work / name)


def save(build: Any, folder: Path) -> Path:
    """Save the result of `build` with seed 0 in diffusers' folder format."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = build()
    # Outputs of random networks are near zero; larger weights make text, time and sizes matter.
    network = pipeline.transformer if hasattr(pipeline, "transformer") else pipeline.unet
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
        for encoder in ("text_encoder", "text_encoder_2", "text_encoder_3"):
            if getattr(pipeline, encoder, None) is not None:
                for parameter in getattr(pipeline, encoder).parameters():
                    parameter.mul_(3.0) if parameter.dim() > 1 else None
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder
