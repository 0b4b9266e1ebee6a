# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files a CLIP model consists of, by name alone: nothing heavy is imported to tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

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
    """Which files, besides weights, a CLIP folder of these names lacks."""
    there = set(names)
    lacking = [name for name in (CONFIG, PROCESSOR) if name not in there]
    spelled = "tokenizer.json" in there or {"vocab.json", "merges.txt"} <= there
    return lacking if spelled else [*lacking, "tokenizer.json"]
