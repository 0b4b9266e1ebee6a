# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file or folder is that holds no model of a supported kind, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .safetensors_header import read_header
from .unsafe_weights import PICKLED, refused_kind

LORA_FILES = ("adapter_config.json", "pytorch_lora_weights.safetensors")


def unsupported_kind(names: Iterable[str]) -> str:
    """What a repository or folder without model_index.json is, in words, by its files' names; "" when nothing tells."""
    names = sorted(names)
    gguf = next((name for name in names if name.lower().endswith(".gguf")), "")
    if gguf:
        return f"holds GGUF weights ({gguf}), quantized for other programs"
    lora = next((n for n in names if n in LORA_FILES or ("lora" in n.lower() and n.endswith(".safetensors"))), "")
    if lora:
        return f"is a LoRA ({lora}): a small change to another model, which is not applied here"
    single = next((n for n in names if "/" not in n and n.endswith((".safetensors", ".ckpt"))), "")
    if single and not any("/" in name and name.endswith(".safetensors") for name in names):
        return f"is a checkpoint in a single file ({single}), not a pipeline folder"
    return ""


def unsupported_file(path: Path) -> str:
    """What a single file is that was given as a model, in words."""
    if path.suffix.lower() == ".gguf":
        return "is a GGUF file, quantized for other programs"
    if path.suffix.lower() == ".safetensors":
        try:
            names = read_header(path)
        except ValueError as error:
            return f"is a file that {error}"
        if any(mark in name for name in names for mark in ("lora_", ".lora.", "lokr_", "hada_")):
            return "is a LoRA file: a small change to another model, which `generate` takes with --lora"
        return "is a checkpoint in a single file, of which `dreamwright models import` makes a folder"
    kind = refused_kind(path.name)
    danger = ", which can run programs when read" if kind == PICKLED else ""
    return f"is a file of {kind}{danger}" if kind else "is a file"
