# SPDX-License-Identifier: GPL-3.0-or-later
"""Proof that a tokenizer is the model's own: transformers would replace files that are missing or empty by defaults."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import ModelError, one_line
from .json_files import read_object

CONFIG, SPECIAL = "tokenizer_config.json", "special_tokens_map.json"
FAST = "tokenizer.json"
VOCABULARIES = ((FAST,), ("vocab.json", "merges.txt"), ("spiece.model",))
# Every serialized tokenizer has these keys, null where a step is not used.
STEPS = ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model")
ROLES = ("eos_token", "pad_token", "unk_token")
PADDED_TO = 128  # embeddings may have up to so many more rows than there are tokens, for the sake of fast matrices
EXTRA_ID = "<extra_id_"  # T5's sentinels, which need no rows


def tokenizer_files(names: Iterable[str]) -> list[str]:
    """The files that transformers loads a tokenizer from, of those there are."""
    return sorted(name for name in names if name.endswith((".json", ".txt", ".model")))


def missing_tokenizer_files(names: Iterable[str]) -> list[str]:
    """What a tokenizer's folder lacks, by names alone."""
    there = set(names)
    missing = [] if CONFIG in there else [CONFIG]
    lacking = [[name for name in group if name not in there] for group in VOCABULARIES]
    if not all(lacking):
        return missing
    incomplete = [absent for absent, group in zip(lacking, VOCABULARIES, strict=True) if len(absent) < len(group)]
    return missing + (incomplete[0] if incomplete else [FAST])


def check_tokenizer_files(folder: Path) -> None:
    """Raise ModelError naming a file that is missing, empty or unreadable; nothing is loaded."""
    names = [file.name for file in folder.iterdir() if file.is_file()] if folder.is_dir() else []
    if missing := missing_tokenizer_files(names):
        raise ModelError(f"{folder} lacks {', '.join(missing)}; download the model again, whole")
    for name in tokenizer_files(names):
        if not (folder / name).stat().st_size:
            raise ModelError(f"cannot load the tokenizer: {folder / name} is empty; download the model again, whole")
        if name.endswith(".json"):
            read_object(folder / name)
    if FAST in names:
        _check_serialized(folder / FAST)


def load_checked_tokenizer(folder: Path, class_name: str, label: str, rows: object) -> Any:
    """The tokenizer in a folder as that class of transformers, for an encoder with `rows` embeddings.

    `label` says whose it is, for errors. Raises ModelError for files that are missing, empty, unreadable or do not fit.
    """
    import transformers

    check_tokenizer_files(folder)
    try:
        tokenizer = getattr(transformers, class_name).from_pretrained(folder, local_files_only=True)
    except MemoryError:
        raise
    except Exception as error:  # tokenizers raises plain Exceptions for files that it cannot read
        raise ModelError(f"cannot load {label}: {one_line(error)}; download the model again, whole") from error
    check_tokenizer(tokenizer, folder, rows)
    return tokenizer


def check_tokenizer(tokenizer: Any, folder: Path, rows: object) -> None:
    """Raise ModelError unless a tokenizer fits an encoder with `rows` embeddings and has a merge for every piece."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            f"{folder} needs a tokenizer without a fast version; allowed are CLIP's and T5's; choose another model"
        )
    content = json.loads(backend.to_str())["model"]
    kind = str(content.get("type"))
    _check_settings(folder, kind)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ModelError(
            f"{folder} has a vocabulary with gaps or doubles in its numbers; download the model again, whole"
        )
    size = sum(not token.startswith(EXTRA_ID) for token in vocabulary)
    spare = 0 if kind == "BPE" else PADDED_TO
    if isinstance(rows, int) and not size <= rows <= size + spare:
        raise ModelError(
            f"{folder} knows {size} tokens, its text encoder {rows}; they must match; download the model again, whole"
        )
    if kind == "BPE":
        _check_merges(folder, content, {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()})
    for role in ROLES:
        token = getattr(tokenizer, role, None)
        if token is None or str(token) not in vocabulary:
            raise ModelError(f"{folder} has {role} {token!r}, which is no token; download the model again, whole")


def _check_settings(folder: Path, kind: str) -> None:
    """T5's special tokens and length are fixed by its format; those of other tokenizers must be stated."""
    config = read_object(folder / CONFIG)
    stated = config | (read_object(folder / SPECIAL) if (folder / SPECIAL).is_file() else {})
    needed = () if kind == "Unigram" else ("model_max_length", *ROLES)
    if not config:
        raise ModelError(f"{folder / CONFIG} states nothing; download the model again, whole")
    if lacking := [name for name in needed if name not in stated]:
        raise ModelError(f"{folder / CONFIG} lacks {', '.join(lacking)}; download the model again, whole")
    length = config.get("model_max_length", 512)
    if isinstance(length, bool) or not isinstance(length, (int, float)) or not length >= 1:
        raise ModelError(
            f"{folder / CONFIG} has model_max_length {length!r}; needed is a number; download the model again, whole"
        )


def _check_serialized(path: Path) -> None:
    content = read_object(path)
    lacking = [name for name in STEPS if name not in content]
    model = content.get("model")
    if lacking or not isinstance(model, dict) or not model.get("vocab"):
        raise ModelError(f"{path} lacks {', '.join(lacking) or 'its vocabulary'}; download the model again, whole")
    if model.get("type") == "BPE" and (absent := {"merges", "end_of_word_suffix", "unk_token"} - set(model)):
        raise ModelError(f"{path} lacks {', '.join(sorted(absent))}; download the model again, whole")


def _check_merges(folder: Path, model: dict[str, Any], special: set[str]) -> None:
    """Every piece of several symbols is made by a merge; one that is not shows that merges are missing."""
    suffix = model.get("end_of_word_suffix") or ""
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model.get("merges", ())]
    made = {first + second for first, second in pairs}
    for piece in model["vocab"]:
        symbol = piece.removesuffix(suffix) if suffix else piece
        if len(symbol) > 1 and piece not in made and piece not in special:
            raise ModelError(
                f"{folder} has no merge that makes the piece {piece!r}, so its merges.txt is not whole; "
                "download the model again, whole"
            )
