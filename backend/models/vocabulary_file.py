# SPDX-License-Identifier: GPL-3.0-or-later
"""The vocabulary that a small model states in `domain.json` beside its pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamwright.shared.prompt_words import PromptVocabulary

from ..errors import ModelError
from .json_files import read_object

VOCABULARY_FILE = "domain.json"


def read_vocabulary(folder: Path) -> PromptVocabulary:
    """The folder's domain.json; a vocabulary without words for models that take any prompt.

    Raises ModelError when the file cannot be read or states no words, or anything else than texts.
    """
    path = folder / VOCABULARY_FILE
    if not path.exists() and not path.is_symlink():
        return PromptVocabulary()
    content = read_object(path)
    words, examples = (_texts(path, content, key) for key in ("words", "examples"))
    if not words:
        raise ModelError(
            f"{path} states no words; needed is a list of all words that the model knows; restore the file"
        )
    kinds, synonyms = (_text_map(path, content, key) for key in ("kinds", "synonyms"))
    astray = sorted({*kinds, *synonyms.values()} - set(words))
    if astray:
        raise ModelError(f"{path} maps to {astray[0]!r}, which is not among its words; restore the file")
    return PromptVocabulary(words, kinds, synonyms, examples)


def _texts(path: Path, content: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = content.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ModelError(f"{path} has no list of texts under {key!r}; restore the file")
    return tuple(value)


def _text_map(path: Path, content: Mapping[str, Any], key: str) -> dict[str, str]:
    value = content.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ModelError(f"{path} has no map from texts to texts under {key!r}; restore the file")
    return value
