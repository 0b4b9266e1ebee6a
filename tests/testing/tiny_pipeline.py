# SPDX-License-Identifier: GPL-3.0-or-later
"""Random pipelines of a few thousand weights in diffusers' on-disk format, for tests."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

WORDS = ("a", ",", "red", "blue", "mushroom", "chair", "view", "front", "side", "back", "overhead", "untextured")


def write_tokenizer(folder: Path, length: int = 12) -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(",", behavior="isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=length
    )
    fast.save_pretrained(folder / "tokenizer")
    return fast


def write_pipeline(
    folder: Path,
    shuffle: int = 2,
    learned_variance: bool = False,
    prediction_type: str = "sample",
    image_size: int = 16,
    clip_text: bool = False,
    train_steps: int = 1000,
    domain: bool = True,
) -> Path:
    """Write a tiny frozen model; the same arguments give the same weights."""
    folder.mkdir(parents=True, exist_ok=True)
    channels = 3 * shuffle**2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=image_size // shuffle,
            in_channels=channels,
            out_channels=channels * (2 if learned_variance else 1),
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
            cross_attention_dim=16,
            encoder_hid_dim=16,
            attention_head_dim=8,
            addition_embed_type="text",
            addition_embed_type_num_heads=2,
            resnet_time_scale_shift="scale_shift",
        )
        if clip_text:
            config = CLIPTextConfig(
                vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                max_position_embeddings=77, eos_token_id=1, pad_token_id=0, bos_token_id=1,
            )  # fmt: skip
            encoder = CLIPTextModel(config)
        else:
            config = T5Config(
                vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.1,
                pad_token_id=0, eos_token_id=1, feed_forward_proj="gated-gelu",
            )  # fmt: skip
            encoder = T5EncoderModel(config)
    unet.save_pretrained(folder / "unet", safe_serialization=True)
    encoder.save_pretrained(folder / "text_encoder")
    write_tokenizer(folder)
    DDPMScheduler(
        num_train_timesteps=train_steps, beta_schedule="squaredcos_cap_v2", prediction_type=prediction_type
    ).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "IFPipeline",
        "_diffusers_version": "0.35.0",
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", type(encoder).__name__],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "unet": ["diffusers", "UNet2DConditionModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    if domain:
        known = {"words": list(WORDS), "examples": ["a red mushroom", "a blue chair"]}
        (folder / "domain.json").write_text(json.dumps(known))
    return folder
