# SPDX-License-Identifier: GPL-3.0-or-later
"""A safetensors file that a user gives: refused by name and header, before a tensor is read."""

from __future__ import annotations

from pathlib import Path

from ..errors import ModelError
from .safetensors_header import header_error
from .unsafe_weights import PICKLED, refused_kind

FLOATS = ("F16", "BF16", "F32", "F64")  # numbers that weights may have


def check_given_file(path: Path, what: str, another: str) -> None:
    """Raise ModelError for a pickle, another format, and a file that is damaged or cut off.

    what: the file as errors call it. another: what to choose in place of a file in another format.
    """
    if refused_kind(path.name) == PICKLED:
        raise ModelError(
            f"{what} is a pickle, which can run programs when it is read; elsewhere, where that does no harm, read it "
            "with torch.load and weights_only=True, write its state_dict with safetensors.torch.save_file, and give "
            "that file"
        )
    if path.suffix.lower() != ".safetensors":
        raise ModelError(f"{what} does not end in .safetensors; only that format is read; {another}")
    if fault := header_error(path):
        raise ModelError(f"{what} {fault}; copy or download it again, whole")
