# SPDX-License-Identifier: GPL-3.0-or-later
"""A safetensors file written tensor by tensor, with its hash: safetensors' own writer copies all tensors first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

NAMES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}
BLOCK = 2**24  # bytes written at a time
ALIGNMENT = 8  # of the header's length


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], count: Callable[[int], object]) -> str:
    """Write the tensors (floating point, on the CPU) to a new file; returns its SHA-256 in hex.

    The layout is that of `safetensors_header`: large numbers first, so that every tensor is aligned. `count` is called
    with numbers of bytes written. Raises OSError.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    digest = hashlib.sha256()
    with open(path, "xb", buffering=0) as stream:

        def write(data: memoryview | bytes) -> None:
            for begin in range(0, len(data), BLOCK):
                block = memoryview(data)[begin : begin + BLOCK]
                digest.update(block)
                while block:
                    block = block[stream.write(block) :]

        write(len(text).to_bytes(8, "little"))
        write(text)
        for name in names:
            data = tensors[name].detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
            write(data)
            count(data.nbytes)
    return digest.hexdigest()
