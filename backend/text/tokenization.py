# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pipeline's tokenizers make of a prompt: unknown words, and words beyond what an encoder reads.

Tokenizers are small and need no weights, so prompts can be checked before anything heavy is loaded.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from typing import Any

from tokenizers import models as tokenizer_models

from ..errors import PromptError
from ..models.families import TextPart
from ..models.pipeline_folder import PipelineFolder, load_tokenizer
from .vocabulary import read_vocabulary, split_words, unknown_message


class EncoderTokenizer:
    """One encoder's tokenizer; `length` tokens are read, special ones among them. Raises ModelError for bad files."""

    def __init__(self, folder: PipelineFolder, part: TextPart) -> None:
        self.part = part
        self.tokenizer: Any = load_tokenizer(folder, part.tokenizer)
        self.length = min(int(self.tokenizer.model_max_length), part.max_tokens)
        # DeepFloyd IF's captions are in lower case, and its T5 tells cases apart.
        self.lower = folder.family.name == "pixel" and folder.classes[part.encoder] == "T5EncoderModel"

    def preprocess(self, prompt: str) -> str:
        """As the pipelines do: surrounding blanks go, and DeepFloyd IF's captions are in lower case."""
        return prompt.strip().lower() if self.lower else prompt.strip()

    def count(self, text: str) -> int:
        """Tokens of the prompt with its special tokens, untruncated."""
        return len(self.tokenizer(self.preprocess(text), truncation=False, verbose=False).input_ids)

    def cut(self, prompt: str) -> str:
        """The words of the prompt that the encoder is not shown in full, from the first such word on; "" for none."""
        if self.count(prompt) <= self.length:
            return ""
        words = prompt.split()
        kept = bisect.bisect_right(range(1, len(words) + 1), self.length, key=lambda n: self.count(" ".join(words[:n])))
        return " ".join(words[kept:])

    def unknown(self, text: str) -> list[str]:
        """Words that become the unk token; only word-level tokenizers have such, others spell a word out."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None or not isinstance(backend.model, tokenizer_models.WordLevel):
            return []
        words = dict.fromkeys(split_words(self.preprocess(text)))
        unk = self.tokenizer.unk_token_id
        return [word for word in words if unk in self.tokenizer(word, add_special_tokens=False).input_ids]


class PromptTokenizer:
    """All tokenizers of a pipeline folder. Raises ModelError when one of them cannot be read."""

    def __init__(self, folder: PipelineFolder) -> None:
        present = [part for part in folder.family.text if part.encoder in folder.classes]
        self.parts = tuple(EncoderTokenizer(folder, part) for part in present)
        self._known: Mapping[str, Any] | None = read_vocabulary(folder.path)

    def preprocess(self, prompt: str) -> str:
        """The text that embeddings are known by."""
        return self.parts[0].preprocess(prompt)

    def check(self, prompt: str) -> list[str]:
        """Warnings about a prompt that the model can take. Raises PromptError: empty, or words that it does not know."""
        if not self.preprocess(prompt):
            raise PromptError("the prompt is empty; describe an object, such as 'a red mushroom'")
        unknown = list(dict.fromkeys(word for part in self.parts for word in part.unknown(prompt)))
        if unknown:
            raise PromptError(unknown_message(unknown, self._known))
        # Encoders that read equally much are told of together.
        cuts: dict[tuple[int, int, str], list[str]] = {}
        for part in self.parts:
            if cut := part.cut(prompt):
                cuts.setdefault((part.count(prompt), part.length, cut), []).append(part.part.encoder)
        warnings = []
        for (count, length, cut), encoders in cuts.items():
            whose = f" ({', '.join(encoders)})" if len(self.parts) > 1 else ""
            warnings.append(
                f"the prompt has {count} tokens, the model reads the first {length}{whose}; cut off is {cut!r} of {prompt!r}"
            )
        return warnings
