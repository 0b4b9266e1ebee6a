# SPDX-License-Identifier: GPL-3.0-or-later
"""Text embeddings of a pipeline folder: encoded once, cached by (model, prompt), the encoder loaded only when needed.

DeepFloyd IF's encoder takes more memory than everything else together, so it is loaded at the first prompt that no
cache knows and can be freed at any time; a later unknown prompt loads it again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamwright.backend.guidance.pipeline_folder import PipelineFolder, load_model, load_tokenizer

MAX_TOKENS = 77  # DeepFloyd IF pads to this although T5 reads more, and CLIP reads no more


class TextEmbedder:
    """Prompts -> last hidden states (n, tokens, width) in `dtype`, padded to a fixed length as the pipelines do."""

    def __init__(
        self, folder: PipelineFolder, device: torch.device | str, dtype: torch.dtype, cache: str | Path | None
    ) -> None:
        self.folder = folder
        self.device = device
        self.dtype = dtype
        self.tokenizer = load_tokenizer(folder)
        self.length = min(int(self.tokenizer.model_max_length), MAX_TOKENS)
        self.is_t5 = folder.classes["text_encoder"] == "T5EncoderModel"
        self._cache = None if cache is None else Path(cache)
        self._text_hash = "" if cache is None else folder.text_hash()
        self._known: dict[str, Tensor] = {}
        self._encoder: torch.nn.Module | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether the text encoder is in memory."""
        return self._encoder is not None

    def free(self) -> None:
        """Drop the text encoder; embeddings that are known stay known."""
        self._encoder = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Last hidden states (n, tokens, width) of the prompts, each encoded at most once.

        Raises ModelError when the encoder has to be loaded and cannot be.
        """
        texts = [self.preprocess(prompt) for prompt in prompts]
        unknown = [text for text in dict.fromkeys(texts) if text not in self._known and not self._recall(text)]
        if unknown:
            # Encoded one by one: a batched encoding depends on its neighbours in the last bits, so that the cache
            # would change results, and a handful of prompts costs little.
            for text in unknown:
                self._known[text] = self._encode(text)
                self._store(text)
        return torch.stack([self._known[text] for text in texts])

    def preprocess(self, prompt: str) -> str:
        """As the pipelines do: surrounding blanks go, and T5's captions are in lower case."""
        return prompt.strip().lower() if self.is_t5 else prompt.strip()

    def token_count(self, prompt: str) -> int:
        """Tokens of the prompt with its end token, untruncated."""
        return len(self.tokenizer(self.preprocess(prompt), truncation=False, verbose=False).input_ids)

    @torch.no_grad()
    def _encode(self, text: str) -> Tensor:
        if self._encoder is None:
            self._encoder = load_model(self.folder, "text_encoder", self.dtype, self.device)
        tokens = self.tokenizer(
            [text], padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        # CLIP pipelines show the encoder its padding unless its configuration says otherwise; T5 pipelines hide it.
        masked = self.is_t5 or bool(getattr(self._encoder.config, "use_attention_mask", False))
        mask = tokens.attention_mask.to(self.device) if masked else None
        hidden = self._encoder(input_ids=tokens.input_ids.to(self.device), attention_mask=mask).last_hidden_state
        return hidden[0].to(self.dtype)

    def _path(self, text: str) -> Path | None:
        if self._cache is None:
            return None
        key = f"{self._text_hash}\0{self.length}\0{self.dtype}\0{text}"
        return self._cache / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"

    def _recall(self, text: str) -> bool:
        path = self._path(text)
        if path is None or not path.is_file():
            return False
        try:
            hidden = load_file(path)["hidden"]
        except (OSError, SafetensorError, KeyError):
            return False  # a damaged entry is encoded again and overwritten
        if hidden.ndim != 2 or len(hidden) != self.length or hidden.dtype != self.dtype:
            return False
        self._known[text] = hidden.to(self.device)
        return True

    def _store(self, text: str) -> None:
        path = self._path(text)
        if path is None:
            return
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"hidden": self._known[text].cpu().contiguous()}, partial)
            os.replace(partial, path)
        except (OSError, SafetensorError):
            # A cache that cannot be written costs time, never a run.
            partial.unlink(missing_ok=True)
