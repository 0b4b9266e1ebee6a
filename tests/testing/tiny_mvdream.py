# SPDX-License-Identifier: GPL-3.0-or-later
"""A tiny MVDream in the layout of its published folder: the true names, narrow layers, random weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel

from tests.testing.mvdream_reference import TINY_CONFIG, random_weights
from tests.testing.tiny_families import LINEAR, clip_encoder, clip_tokenizer, vae

# Of ashawkey/mvdream_diffusers' converter: the U-Net's class is the folder's own, the last two are ImageDream's.
INDEX: Mapping[str, Any] = {
    "_class_name": "MVDreamPipeline",
    "_diffusers_version": "0.24.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["mv_unet", "MultiViewUNetModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def write_mvdream(folder: Path, weights: Mapping[str, Tensor] | None = None) -> Path:
    """Write the folder; the U-Net has the weights of `mvdream_reference.random_weights` unless others are given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = {"vae": vae(4, scaling_factor=0.18215), "text_encoder": clip_encoder(CLIPTextModel, 16)}
        with torch.no_grad():
            for parameter in parts["text_encoder"].parameters():
                parameter.mul_(3.0) if parameter.dim() > 1 else None
    for name, part in parts.items():
        part.save_pretrained(folder / name, safe_serialization=True)
    clip_tokenizer(folder / "tokenizer")
    DDIMScheduler(**LINEAR, steps_offset=1, clip_sample=False, set_alpha_to_one=False).save_pretrained(
        folder / "scheduler"
    )
    (folder / "unet").mkdir()
    described = {"_class_name": "MultiViewUNetModel", "_diffusers_version": "0.24.0", **TINY_CONFIG}
    (folder / "unet" / "config.json").write_text(json.dumps(described))
    (folder / "unet" / "mv_unet.py").write_text("raise SystemExit('code of a model folder was run')\n")
    (folder / "model_index.json").write_text(json.dumps(dict(INDEX)))
    save_file(dict(random_weights(TINY_CONFIG) if weights is None else weights), folder / WEIGHTS)
    return folder
