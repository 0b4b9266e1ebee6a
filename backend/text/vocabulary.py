# SPDX-License-Identifier: GPL-3.0-or-later
"""What a small model says that it knows (domain.json beside its pipeline), and what it answers to other words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..models.json_object import read_object


def read_vocabulary(folder: Path) -> Mapping[str, Any] | None:
    """The folder's domain.json, None for models that take any words. Raises ModelError when it cannot be read."""
    path = folder / "domain.json"
    return read_object(path) if path.is_file() else None


def split_words(text: str) -> list[str]:
    """Words and punctuation marks, one by one, as word-level tokenizers see them."""
    return re.findall(r"[^\s.,;:!?]+|[.,;:!?]", text)


def unknown_words(text: str, known: Mapping[str, Any]) -> list[str]:
    """Words of `text` outside a model's words, each once; the tokenizer need not be loaded to tell."""
    words = set(known.get("words", ()))
    return list(dict.fromkeys(w for w in split_words(text) if w not in ".,;:!?" and w.lower() not in words))


def unknown_message(unknown: Sequence[str], known: Mapping[str, Any] | None) -> str:
    """One line: the unknown words, near misses, what the model knows, what to do."""
    message = f"this model does not know {', '.join(repr(word) for word in unknown)}"
    if known is not None:
        words = [str(word) for word in known.get("words", ())]
        close = dict.fromkeys(hit for word in unknown for hit in difflib.get_close_matches(word, words, n=1))
        message += f" (did you mean {', '.join(close)}?)" if close else ""
        groups = [f"the {name} {', '.join(map(str, known[name]))}" for name in ("colors", "props") if known.get(name)]
        message += f"; it knows {' and '.join(groups) if groups else 'the words ' + ' '.join(words)}"
        examples = [repr(str(example)) for example in known.get("examples", ())]
        message += f", as in {', '.join(examples)}" if examples else ""
    return f"{message}; use its words, or a model like DeepFloyd IF, which knows every word"
