# SPDX-License-Identifier: GPL-3.0-or-later
"""CLIP as two differentiable functions from images and prompts to one space; a cosine measures how well they fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dreamwright.shared.prompt_words import PromptVocabulary, read_prompt

from ..errors import PromptError
from ..models.clip_folder import ClipFolder, Preprocessing, clip_network, clip_tokenizer, open_clip
from ..models.vocabulary_file import read_vocabulary
from ..text.conditioning import Conditioning
from ..text.vocabulary import check_words, tokenizer_vocabulary

TEXT = "text"  # the name of a prompt's embedding in its conditioning


class ImageTextModel:
    """A frozen CLIP. `image_size` is in pixels, `logit_scale` the factor from cosines to the model's own logits."""

    def __init__(self, folder: ClipFolder, network: Any, tokenizer: Any) -> None:
        self.folder, self.network, self.tokenizer = folder, network, tokenizer
        self.preprocessing, self.image_size = folder.preprocessing, folder.preprocessing.crop
        self.logit_scale = float(network.logit_scale.exp())
        stated = read_vocabulary(folder.path)
        self.vocabulary: PromptVocabulary = stated if stated.words else tokenizer_vocabulary(tokenizer)
        self.length = int(network.config.text_config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        return self.network.device

    def embed_images(self, images: Tensor) -> Tensor:
        """Unit embeddings (n, d) of images (n, 3, h, w) in [0, 1] of any size, differentiable; float32, or float64."""
        return self.embed_pixels(preprocess_images(images, self.preprocessing))

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """Unit embeddings (n, d) of images as `preprocess_images` returns them."""
        wide = torch.promote_types(pixels.dtype, torch.float32)
        seen = self.network.vision_model(pixel_values=pixels.to(self.network.dtype)).pooler_output
        return functional.normalize(self.network.visual_projection(seen).to(wide), dim=-1)

    @torch.no_grad()
    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Unit embeddings (n, d) of prompts, of which the first `length` tokens are read."""
        texts = [read_prompt(prompt, self.vocabulary).text for prompt in prompts]
        tokens = self.tokenizer(
            texts, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        ).to(self.device)
        read = self.network.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        embedded = self.network.text_projection(read)
        return functional.normalize(embedded.to(torch.promote_types(embedded.dtype, torch.float32)), dim=-1)

    @torch.no_grad()
    def scores(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Cosine similarities (n, m) of images with captions."""
        return self.embed_images(images) @ self.embed_prompts(captions).T

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """One row for each prompt."""
        return Conditioning({TEXT: self.embed_prompts(prompts)})

    def check_prompt(self, prompt: str) -> list[str]:
        """Warnings about a prompt that the model can use. Raises PromptError: empty, or words that it does not know."""
        if not prompt.strip():
            raise PromptError("the prompt is empty; describe an object, such as 'a red mushroom'")
        reading = check_words(prompt, self.vocabulary)
        warnings = [reading.notice] if reading.notice else []
        count = len(self.tokenizer(reading.text, truncation=False, verbose=False).input_ids)
        if count > self.length:
            warnings.append(
                f"the prompt has {count} tokens, the model reads the first {self.length}; "
                f"the end of {reading.text!r} is cut off"
            )
        return warnings


def load_image_text(
    folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> ImageTextModel:
    """The CLIP of a folder, from disk and never from a network. Raises ModelError naming what is wrong."""
    opened = open_clip(folder)
    return ImageTextModel(opened, clip_network(opened, dtype, device), clip_tokenizer(opened))


def preprocess_images(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """CLIP's preprocessing of images (n, 3, h, w) in [0, 1]: (n, 3, crop, crop), differentiable.

    As PIL's, the bicubic filter widens where it shrinks, and what it overshoots is cut off; only PIL's rounding to 256
    levels is left out.
    """
    height, width = images.shape[-2:]
    shorter = min(height, width)
    if shorter != preprocessing.shortest:
        size = [preprocessing.shortest * side // shorter for side in (height, width)]
        images = functional.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        height, width = size
    top, left = (height - preprocessing.crop) // 2, (width - preprocessing.crop) // 2
    return normalize_images(
        images[..., top : top + preprocessing.crop, left : left + preprocessing.crop], preprocessing
    )


def normalize_images(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(x - mean) / std of images (..., 3, h, w) in [0, 1]."""
    mean, std = (
        torch.tensor(values, dtype=images.dtype, device=images.device).view(3, 1, 1)
        for values in (preprocessing.mean, preprocessing.std)
    )
    return (images - mean) / std
