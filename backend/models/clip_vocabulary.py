# SPDX-License-Identifier: GPL-3.0-or-later
"""CLIP's tokenizer as files: Stable Diffusion's checkpoints in a single file hold none.

The merges are part of the package (`clip_merges`, OpenAI's, MIT license); the vocabulary follows from them: 256 bytes,
the same at the end of a word, one piece a merge, start and end of a text (Radford et al. 2021).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from importlib import resources

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
TOKENS = 77  # that CLIP reads
PRINTABLE = (*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1))


def byte_symbols() -> list[str]:
    """One visible character for each byte: itself where it is printable, else one from U+0100 on, in that order."""
    others = [byte for byte in range(256) if byte not in PRINTABLE]
    return [*map(chr, PRINTABLE), *(chr(256 + i) for i in range(len(others)))]


def read_merges() -> list[str]:
    """The packaged merges, "first second", the most frequent first."""
    packed = resources.files("dreamwright.backend.models").joinpath("clip_merges", "merges.txt.gz").read_bytes()
    return gzip.decompress(packed).decode("utf-8").splitlines()


def tokenizer_content(pad: str) -> Mapping[str, str]:
    """The files of a CLIPTokenizer folder by name; `pad` is the token that fills a prompt up to 77 tokens."""
    merges = read_merges()
    bytes_ = byte_symbols()
    pieces = [*bytes_, *(symbol + WORD_END for symbol in bytes_), *("".join(pair.split()) for pair in merges)]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, START, END])}
    special = {"bos_token": START, "eos_token": END, "pad_token": pad, "unk_token": END}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": TOKENS,
        **special,
    }
    return {
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *merges]) + "\n",
        "special_tokens_map.json": json.dumps(special, indent=2),
        "tokenizer_config.json": json.dumps(config, indent=2),
    }
