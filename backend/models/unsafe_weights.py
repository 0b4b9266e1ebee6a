# SPDX-License-Identifier: GPL-3.0-or-later
"""Weight files that are never read, by their names: pickles, and formats of other libraries."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath

PICKLED = "pickled weights"  # torch's pickles, which can run programs when they are read
OTHER = "weights of another library"  # Keras' and Flax's: no pickles, but nothing that torch reads
ENDINGS = {".bin": PICKLED, ".ckpt": PICKLED, ".pt": PICKLED, ".pth": PICKLED, ".h5": OTHER, ".msgpack": OTHER}


def refused_kind(name: str) -> str:
    """`PICKLED` or `OTHER` for a file of that name, "" for a file of neither."""
    return ENDINGS.get(PurePath(name).suffix.lower(), "")


def unsafe_weights_found(names: Iterable[str], part: str = "") -> str:
    """What is found in place of safetensors weights of `part`, for an error.

    "only pickled weights (model.bin)", "only weights of another library (tf_model.h5)", or "no weights of its unet".
    """
    names = sorted(names)
    of = f" of its {part}" if part else ""
    for kind in (PICKLED, OTHER):
        found = next((name for name in names if refused_kind(name) == kind), "")
        if found:
            return f"only {kind}{of} ({found})"
    return f"no weights{of}"
