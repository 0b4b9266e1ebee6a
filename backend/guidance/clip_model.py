# SPDX-License-Identifier: GPL-3.0-or-later
"""CLIP as a pair of differentiable functions: pictures and prompts into one space, where a cosine says how well they fit."""

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

    def embed_images(self, pictures: Tensor) -> Tensor:
        """Unit embeddings (n, d) of pictures (n, 3, h, w) in [0, 1] of any size, differentiable; float32, or the input's float64."""
        return self.embed_pixels(preprocess_images(pictures, self.preprocessing))

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """Unit embeddings (n, d) of pictures as `preprocess_images` returns them."""
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
        """Cosine similarities (n, m) of images with captions. R-Precision follows from them in `evaluation.retrieval`."""
        return self.embed_images(images) @ self.embed_prompts(captions).T

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """One row a prompt, which is what `PromptEmbeddings` asks of a model."""
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


def preprocess_images(pictures: Tensor, how: Preprocessing) -> Tensor:
    """What CLIP's processor makes of pictures (n, 3, h, w) in [0, 1]: (n, 3, crop, crop), differentiable.

    As PIL's, the bicubic filter widens where it shrinks, and what it overshoots is cut off; only PIL's rounding to 256
    levels is left out.
    """
    height, width = pictures.shape[-2:]
    shorter = min(height, width)
    if shorter != how.shortest:
        size = [how.shortest * side // shorter for side in (height, width)]
        pictures = functional.interpolate(pictures, size, mode="bicubic", align_corners=False, antialias=True).clamp(
            0, 1
        )
        height, width = size
    top, left = (height - how.crop) // 2, (width - how.crop) // 2
    return normalize_images(pictures[..., top : top + how.crop, left : left + how.crop], how)


def normalize_images(pictures: Tensor, how: Preprocessing) -> Tensor:
    """(x - mean) / std of pictures (..., 3, h, w) in [0, 1]."""
    mean, std = (
        torch.tensor(values, dtype=pictures.dtype, device=pictures.device).view(3, 1, 1)
        for values in (how.mean, how.std)
    )
    return (pictures - mean) / std
