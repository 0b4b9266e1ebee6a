# SPDX-License-Identifier: GPL-3.0-or-later
"""The starter's image-text models in transformers' own CLIP classes, and their folder on disk.

Two towers over 64x64 images and one token a word, without view words: like CLIP's, they tell what is shown and not
from where. There are two models, since one that guided an optimization must not evaluate it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from . import domain
from .architecture import build_tokenizer
from .words import domain_file

IMAGE_SIZE = 64  # pixels a side
MAX_TOKENS = 8  # "a red mushroom </s>" and a little room
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)  # of each channel, as the processor subtracts and divides
WORDS = ("a", "an", *domain.COLORS, *(prop.name for prop in domain.PROPS))


@dataclass(frozen=True)
class Towers:
    """Sizes of the two transformers and of the space they share."""

    patch: int  # pixels a side of one image token
    width: int  # units of the image tower
    layers: int
    widening: int  # of its hidden units in each layer
    text_width: int = 64
    text_layers: int = 2
    joint: int = 64  # dimensions of the shared space


# Other patches, widths and depths, so that an image that fools one need not fool the other.
GUIDE = Towers(patch=8, width=64, layers=3, widening=2)
RETRIEVER = Towers(patch=16, width=96, layers=3, widening=2, text_width=48, joint=48)
TOWERS = {"guide": GUIDE, "retrieve": RETRIEVER}


def build_model(seed: int, towers: Towers) -> CLIPModel:
    """A freshly initialized model; the same seed gives the same weights."""
    tokenizer = build_tokenizer(WORDS)
    config = CLIPConfig(
        text_config=CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=towers.text_width,
            intermediate_size=2 * towers.text_width,
            num_hidden_layers=towers.text_layers,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        ).to_dict(),
        vision_config=CLIPVisionConfig(
            hidden_size=towers.width,
            intermediate_size=towers.widening * towers.width,
            num_hidden_layers=towers.layers,
            num_attention_heads=4,
            image_size=IMAGE_SIZE,
            patch_size=towers.patch,
        ).to_dict(),
        projection_dim=towers.joint,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # transformers' constructors draw from the global generator
        return CLIPModel(config)


def token_ids(captions: Sequence[str]) -> torch.Tensor:
    """Tokens (n, MAX_TOKENS) of captions, padded to one length."""
    tokens = build_tokenizer(WORDS)(
        list(captions), padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    return tokens.input_ids


def normalize_images(images: torch.Tensor) -> torch.Tensor:
    """Images (n, 3, 64, 64) in [0, 1] normalized for the image tower."""
    mean, std = (torch.tensor(values, dtype=images.dtype, device=images.device).view(3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def save_folder(model: CLIPModel, folder: Path) -> None:
    """Write a folder as the hub keeps CLIP models (half precision), with the domain's words."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = model.dtype
    movable: Any = model  # the stub of `to` wants a model in place of a dtype
    movable.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    movable.to(trained)
    tokenizer = build_tokenizer(WORDS)
    tokenizer.model_max_length = MAX_TOKENS
    tokenizer.save_pretrained(folder)
    _write(folder / "preprocessor_config.json", _processor())
    _write(folder / "domain.json", domain_file(WORDS))


def _processor() -> dict[str, Any]:
    """What `CLIPImageProcessor` reads."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": IMAGE_SIZE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "do_convert_rgb": True,
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
