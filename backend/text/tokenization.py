# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokenizers of a pipeline: a prompt in the model's words, unknown words, and words beyond what an encoder reads.

Tokenizers are small and need no weights, so prompts can be checked before anything heavy is loaded.
"""

from __future__ import annotations

import bisect
from typing import Any

from dreamwright.shared.prompt_words import PromptVocabulary, read_prompt

from ..errors import PromptError
from ..models.families import TextPart
from ..models.pipeline_folder import PipelineFolder, load_tokenizer
from ..models.vocabulary_file import read_vocabulary
from .vocabulary import check_words, tokenizer_vocabulary


class EncoderTokenizer:
    """Tokenizer of one encoder, which reads `length` tokens, special ones included. Raises ModelError for bad files."""

    def __init__(self, folder: PipelineFolder, part: TextPart) -> None:
        self.part = part
        self.tokenizer: Any = load_tokenizer(folder, part.tokenizer)
        self.length = min(int(self.tokenizer.model_max_length), part.max_tokens)
        # DeepFloyd IF's captions are in lower case, and its T5 tells cases apart.
        self.lower = folder.family.works_on_pixels and folder.classes[part.encoder] == "T5EncoderModel"

    def preprocess(self, prompt: str) -> str:
        """As the pipelines do: blanks at both ends go, and DeepFloyd IF's captions are in lower case."""
        return prompt.strip().lower() if self.lower else prompt.strip()

    def count(self, text: str) -> int:
        """Tokens of the prompt with its special tokens, untruncated."""
        return len(self.tokenizer(self.preprocess(text), truncation=False, verbose=False).input_ids)

    def cut(self, prompt: str) -> str:
        """The end of the prompt, from the first word that the encoder does not read in full; "" for none."""
        if self.count(prompt) <= self.length:
            return ""
        words = prompt.split()
        kept = bisect.bisect_right(range(1, len(words) + 1), self.length, key=lambda n: self.count(" ".join(words[:n])))
        return " ".join(words[kept:])

    def unknown(self, text: str) -> list[str]:
        """Words that become the unk token of a word-level tokenizer; others spell any word."""
        if not tokenizer_vocabulary(self.tokenizer).words:
            return []
        unk = self.tokenizer.unk_token_id
        words = dict.fromkeys(self.preprocess(text).replace(",", " ").split())
        return [word for word in words if unk in self.tokenizer(word, add_special_tokens=False).input_ids]


class PromptTokenizer:
    """All tokenizers of a pipeline folder, and its vocabulary. Raises ModelError when one of them cannot be read."""

    def __init__(self, folder: PipelineFolder) -> None:
        present = [part for part in folder.family.text if part.encoder in folder.classes]
        self.parts = tuple(EncoderTokenizer(folder, part) for part in present)
        stated = read_vocabulary(folder.path)
        self.vocabulary: PromptVocabulary = stated if stated.words else tokenizer_vocabulary(self.parts[0].tokenizer)

    def preprocess(self, prompt: str) -> str:
        """The text that is encoded and that embeddings are cached by: the prompt in the model's own words."""
        return self.parts[0].preprocess(read_prompt(prompt, self.vocabulary).text)

    def check(self, prompt: str) -> list[str]:
        """Warnings about a prompt that the model can use, and how it is read where that is not as typed.

        Raises PromptError: empty, or words that the model does not know.
        """
        if not prompt.strip():
            raise PromptError("the prompt is empty; describe an object, such as 'a red mushroom'")
        reading = check_words(prompt, self.vocabulary)
        text = reading.text
        unknown = list(dict.fromkeys(word for part in self.parts for word in part.unknown(text)))
        if unknown:
            raise PromptError(
                f"the tokenizer does not know {', '.join(map(repr, unknown))}, although domain.json lists it; "
                "the model's files contradict each other; download the model again, whole"
            )
        # Encoders that read equally many tokens share one warning.
        cuts: dict[tuple[int, int, str], list[str]] = {}
        for part in self.parts:
            if cut := part.cut(text):
                cuts.setdefault((part.count(text), part.length, cut), []).append(part.part.encoder)
        warnings = [reading.notice] if reading.notice else []
        for (count, length, cut), encoders in cuts.items():
            which = f" ({', '.join(encoders)})" if len(self.parts) > 1 else ""
            warnings.append(
                f"the prompt has {count} tokens, the model reads the first {length}{which}; "
                f"cut off is {cut!r} of {text!r}"
            )
        return warnings
