# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file or folder is that holds no model of a supported kind, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .mvdream_layout import CAMERA_TENSOR
from .safetensors_header import read_header
from .unsafe_weights import PICKLED, refused_kind

MVDREAM_FILE = "-4view.pt"  # how the names of its own checkpoints end
MVDREAM_COPY = "`dreamwright models download mvdream` brings its weights in the layout that is read"
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
    own = next((name for name in names if name.endswith(MVDREAM_FILE)), "")
    if own:
        return f"holds MVDream's own checkpoint ({own}), a pickle, which can run programs when read; {MVDREAM_COPY}"
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
        if any(name.endswith(CAMERA_TENSOR) for name in names):
            return f"is MVDream's checkpoint in a single file; {MVDREAM_COPY}"
        return "is a checkpoint in a single file, of which `dreamwright models import` makes a folder"
    kind = refused_kind(path.name)
    if path.name.endswith(MVDREAM_FILE):
        return f"is MVDream's own checkpoint, a pickle, which can run programs when read; {MVDREAM_COPY}"
    danger = ", which can run programs when read" if kind == PICKLED else ""
    return f"is a file of {kind}{danger}" if kind else "is a file"
