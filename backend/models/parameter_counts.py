# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers of parameters of a pipeline's parts, from the headers of their safetensors files; no tensor is read."""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch

from ..errors import ModelError
from .pipeline_folder import PipelineFolder
from .safetensors_header import read_header


def loaded_weights(folder: PipelineFolder, part: str, dtype: torch.dtype) -> list[Path]:
    """The safetensors files that loading the part in `dtype` reads: one, or the shards of one variant."""
    return [folder.path / part / name for name in folder.weights(part, dtype).files]


def parameter_count(folder: PipelineFolder, part: str, dtype: torch.dtype = torch.float32) -> int:
    """Parameters of the part. Raises ModelError for a header that cannot be read."""
    return sum(sum(_sizes(file).values()) for file in loaded_weights(folder, part, dtype))


def tensor_shapes(folder: PipelineFolder, part: str, dtype: torch.dtype = torch.float32) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor of the part, by its name. Raises ModelError for a header that cannot be read."""
    return {name: shape for file in loaded_weights(folder, part, dtype) for name, shape in _shapes(file).items()}


def largest_tensor(folder: PipelineFolder, part: str, dtype: torch.dtype = torch.float32) -> int:
    """Parameters in the largest tensor of the part."""
    return max((max(_sizes(file).values(), default=0) for file in loaded_weights(folder, part, dtype)), default=0)


def resident_numbers(folder: PipelineFolder, part: str, offload: str, dtype: torch.dtype = torch.float32) -> int:
    """Parameters of the part that are on the device at once, under `model.offload`.

    "blocks": the largest block of the network's lists of blocks, and all that is in none. "leaves": the largest tensor.
    """
    if offload == "off":
        return parameter_count(folder, part, dtype)
    if offload == "leaves":
        return largest_tensor(folder, part, dtype)
    blocks: dict[str, int] = {"": 0}
    for file in loaded_weights(folder, part, dtype):
        for name, numbers in _sizes(file).items():
            found = re.match(r"\w+\.\d+\.", folder.tensor_name(part, name))
            key = found.group() if found else ""
            blocks[key] = blocks.get(key, 0) + numbers
    return blocks.pop("") + max(blocks.values(), default=0)


def weight_bytes(folder: PipelineFolder, part: str, dtype: torch.dtype) -> int:
    """Bytes of the part's weights once they are loaded in `dtype`."""
    return parameter_count(folder, part, dtype) * dtype.itemsize


def _sizes(path: Path) -> dict[str, int]:
    """Numbers in each tensor of a file, by its name."""
    return {name: math.prod(shape) for name, shape in _shapes(path).items()}


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor of a file, by its name."""
    try:
        return {name: tuple(map(int, entry["shape"])) for name, entry in read_header(path).items()}
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} has no readable safetensors header ({error}); download the model again, whole"
        ) from error
