# SPDX-License-Identifier: GPL-3.0-or-later
"""Prompts in the words of a model: the vocabulary of a word-level tokenizer, and the check of a prompt's words."""

from __future__ import annotations

from typing import Any

from tokenizers import models as tokenizer_models

from dreamwright.shared.prompt_words import PromptReading, PromptVocabulary, read_prompt

from ..errors import PromptError


def tokenizer_vocabulary(tokenizer: Any) -> PromptVocabulary:
    """The words of a word-level tokenizer; a vocabulary without words for tokenizers that spell any text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.model, tokenizer_models.WordLevel):
        return PromptVocabulary()
    special = set(tokenizer.all_special_tokens)
    ordered = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return PromptVocabulary(tuple(word for word, _ in ordered if word not in special))


def check_words(prompt: str, vocabulary: PromptVocabulary) -> PromptReading:
    """The prompt in the model's words. Raises PromptError for words that it does not know, or that contradict."""
    reading = read_prompt(prompt, vocabulary)
    if reading.fault:
        raise PromptError(reading.fault)
    return reading
