# SPDX-License-Identifier: GPL-3.0-or-later
"""The starter prior's parts in diffusers' own classes, and its folder on disk.

An `IFPipeline` in small: a T5 text encoder, a U-Net whose time embedding also carries the pooled text (as DeepFloyd
IF's does, so that color and view words act on every block), a DDPM schedule. The U-Net works on pixel-unshuffled
images (48 channels at a quarter of the resolution) and predicts x0: a smooth target without a pattern of the shuffle,
and the quantity that Score Distillation Sampling needs, since eps_hat - eps = (alpha / sigma) (x - x0_hat).

With more than one view it is a multi-view model (MVDream): the U-Net is also given the pose of each view's camera, and
its self-attention joins the views of one object.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from ..cameras.poses import POSE_NUMBERS
from ..guidance.denoisers.view_attention import join_views
from . import domain
from .words import domain_file

IMAGE_SIZE = 64  # pixels a side
SHUFFLE = 4  # pixel-unshuffle factor: 3 x 64 x 64 -> 48 x 16 x 16; learns faster per image and per second than 2
VIEWS_TOGETHER = 4  # of one prop, that a multi-view model denoises together
MAX_TOKENS = 12  # the longest caption, its end token and a little room
TEXT_WIDTH = 128  # units of the text encoder
FUNCTION_WORDS = ("<pad>", "</s>", "a", "an", ",", "view")


@dataclass(frozen=True)
class Widths:
    """Channels of the U-Net's levels, finest first; attention on the coarsest levels and in the middle."""

    channels: tuple[int, ...] = (64, 128, 192)
    layers_per_block: int = 1
    norm_groups: int = 16
    shuffle: int = SHUFFLE  # pixel-unshuffle factor
    attentive_levels: int = 2  # coarsest levels with attention


@dataclass(frozen=True)
class StarterParts:
    """The trainable and fixed parts of the prior."""

    unet: UNet2DConditionModel
    text_encoder: T5EncoderModel
    tokenizer: PreTrainedTokenizerFast
    scheduler: DDPMScheduler
    views: int = 1  # of one object that are denoised together


def build_tokenizer(words: Sequence[str] = domain.VOCABULARY) -> PreTrainedTokenizerFast:
    """One token a word; any other word becomes <unk>, which the prompt check names."""
    specials = ["<pad>", "</s>", "<unk>"]
    vocabulary = {word: index for index, word in enumerate([*specials, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[.,;:!?]"), behavior="isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
    )


def build_parts(seed: int, widths: Widths = Widths(), views: int = 1) -> StarterParts:
    """Freshly initialized parts; the same seed gives the same weights. `views` over 1 makes a multi-view model.

    The global generator is seeded inside a fork, because diffusers' and transformers' constructors draw from it.
    """
    tokenizer = build_tokenizer()
    deepest = len(widths.channels) - 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder = T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=TEXT_WIDTH,
                d_kv=32,
                d_ff=256,
                num_layers=2,
                num_heads=4,
                dropout_rate=0.0,
                feed_forward_proj="gated-gelu",
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
        _favor_content_words(text_encoder, tokenizer)
        unet: Any = UNet2DConditionModel(
            sample_size=IMAGE_SIZE // widths.shuffle,
            in_channels=3 * widths.shuffle**2,
            out_channels=3 * widths.shuffle**2,
            block_out_channels=widths.channels,
            layers_per_block=widths.layers_per_block,
            down_block_types=tuple(
                "SimpleCrossAttnDownBlock2D" if level > deepest - widths.attentive_levels else "DownBlock2D"
                for level in range(deepest + 1)
            ),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=tuple(
                "SimpleCrossAttnUpBlock2D" if level < widths.attentive_levels else "UpBlock2D"
                for level in range(deepest + 1)
            ),
            norm_num_groups=widths.norm_groups,
            cross_attention_dim=TEXT_WIDTH,
            encoder_hid_dim=TEXT_WIDTH,
            attention_head_dim=32,
            resnet_time_scale_shift="scale_shift",
            addition_embed_type="text",
            addition_embed_type_num_heads=4,
            act_fn="silu",
            class_embed_type="projection" if views > 1 else None,
            projection_class_embeddings_input_dim=POSE_NUMBERS if views > 1 else None,
        )
    if views > 1:
        # Poses change nothing at first, so that a single-view model's weights can be trained further.
        pose_embedding = unet.class_embedding
        torch.nn.init.zeros_(pose_embedding.linear_2.weight)
        torch.nn.init.zeros_(pose_embedding.linear_2.bias)
        join_views(unet)
    scheduler = DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        clip_sample=True,
        variance_type="fixed_small",
    )
    return StarterParts(unet, text_encoder, tokenizer, scheduler, views)


def _favor_content_words(text_encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Initialize content words at unit variance, function words at zero, and layers with little mixing of tokens.

    With equal variances most of the pooled text is the same for all prompts; with these a tenth is.
    """
    with torch.no_grad():
        table = text_encoder.shared.weight
        torch.nn.init.normal_(table, std=1.0)
        table[tokenizer.convert_tokens_to_ids(list(FUNCTION_WORDS))] = 0.0
        blocks: Any = text_encoder.encoder.block
        for block in blocks:
            block.layer[0].SelfAttention.o.weight.mul_(0.1)
            block.layer[1].DenseReluDense.wo.weight.mul_(0.1)


def encode(parts: StarterParts, prompts: Sequence[str]) -> torch.Tensor:
    """Text states (n, MAX_TOKENS, TEXT_WIDTH) of prompts, padded to a fixed length as the guidance pads them."""
    tokens = parts.tokenizer(
        list(prompts), padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    device = parts.text_encoder.device
    return parts.text_encoder(
        input_ids=tokens.input_ids.to(device), attention_mask=tokens.attention_mask.to(device)
    ).last_hidden_state


def save_pipeline(parts: StarterParts, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the parts as a diffusers pipeline folder (safetensors weights in `dtype`) with the domain's words."""
    folder.mkdir(parents=True, exist_ok=True)
    unet: Any = parts.unet  # the libraries' stubs lack these methods
    text_encoder: Any = parts.text_encoder
    scheduler: Any = parts.scheduler
    trained_dtype = unet.dtype
    unet.to(dtype).save_pretrained(folder / "unet", safe_serialization=True)
    text_encoder.to(dtype).save_pretrained(folder / "text_encoder", safe_serialization=True)
    unet.to(trained_dtype)
    text_encoder.to(trained_dtype)
    parts.tokenizer.save_pretrained(folder / "tokenizer")
    scheduler.save_pretrained(folder / "scheduler")
    index: dict[str, Any] = {
        "_class_name": "IFPipeline" if parts.views == 1 else "MultiViewIFPipeline",
        "_diffusers_version": "0.35.0",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "watermarker": [None, None],
    }
    if parts.views > 1:
        index["views"] = parts.views
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    domain_text = json.dumps(domain_file(domain.VOCABULARY), indent=2)
    (folder / "domain.json").write_text(domain_text + "\n", encoding="utf-8")
