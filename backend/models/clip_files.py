# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of the files that a CLIP model consists of; this module imports no heavy library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .tokenizer_check import missing_tokenizer_files

CONFIG, PROCESSOR, TOKENIZER = "config.json", "preprocessor_config.json", "tokenizer_config.json"
SMALL = (
    CONFIG,
    PROCESSOR,
    TOKENIZER,
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)


def is_clip(config: Any) -> bool:
    """Whether a config.json is that of a CLIP model."""
    return isinstance(config, dict) and config.get("model_type") == "clip"


def clip_files(names: Iterable[str]) -> list[str]:
    """The small files, of a repository's, that a CLIP model is loaded from."""
    return [name for name in names if name in SMALL]


def clip_lacks(names: Iterable[str]) -> list[str]:
    """The files, besides weights, that a CLIP folder with these names lacks."""
    there = set(names)
    return [name for name in (CONFIG, PROCESSOR) if name not in there] + missing_tokenizer_files(there)
