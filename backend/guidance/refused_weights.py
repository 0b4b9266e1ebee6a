# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights that are never read, by their files' names: what a folder holds where safetensors are needed."""

from __future__ import annotations

from pathlib import PurePath
from typing import Iterable

PICKLED = (".bin", ".ckpt", ".pt", ".pth")  # torch's pickles, which can run programs when they are read
OTHER = (".h5", ".msgpack")  # Keras' and Flax's: no pickles, but nothing that torch reads


def held_instead(names: Iterable[str], part: str = "") -> str:
    """What of `part` is there instead, for an error: "only pickled weights (model.bin)", "only weights of another library
    (tf_model.h5)", or "no weights of its unet".
    """
    names = sorted(names)
    of = f" of its {part}" if part else ""
    for endings, what in ((PICKLED, "pickled weights"), (OTHER, "weights of another library")):
        found = next((name for name in names if PurePath(name).suffix.lower() in endings), "")
        if found:
            return f"only {what}{of} ({found})"
    return f"no weights{of}"
