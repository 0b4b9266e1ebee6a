# SPDX-License-Identifier: GPL-3.0-or-later
"""The hash encoding by tiny-cuda-nn's CUDA kernels, on the table that the torch encoding reads.

tinycudann is no dependency: it is compiled for one GPU and one torch. It is used where it is installed and the field is
on a CUDA device.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..config.schema import FieldConfig
from .hash_levels import Level


def missing_for_tinycudann(device: torch.device | str) -> str:
    """What tinycudann lacks on this device; "" when nothing."""
    if torch.device(device).type != "cuda":
        return "the field is not on a CUDA device"
    return "" if importlib.util.find_spec("tinycudann") else "the package tinycudann is not installed"


def tinycudann_for(
    config: FieldConfig, levels: Sequence[Level], device: torch.device, dtype: torch.dtype
) -> TinyCudaEncoding | None:
    """Its encoding for float32 tables on this device; None where it is missing or does not fit."""
    fits = dtype == torch.float32 and config.hash_features in (1, 2, 4, 8)  # the kernels that it compiles
    return TinyCudaEncoding(config, levels, device) if fits and not missing_for_tinycudann(device) else None


class TinyCudaEncoding:
    """tinycudann's HashGrid without a table of its own. Raises RuntimeError when its table has another size."""

    def __init__(self, config: FieldConfig, levels: Sequence[Level], device: torch.device) -> None:
        self._levels, self._features = config.hash_levels, config.hash_features
        settings: dict[str, Any] = {
            "otype": "Grid",
            "type": "Hash",
            "n_levels": config.hash_levels,
            "n_features_per_level": config.hash_features,
            "log2_hashmap_size": config.hash_log2_size,
            "base_resolution": config.hash_base_resolution,
            "per_level_scale": config.hash_growth,
            "interpolation": "Linear",
        }
        with torch.cuda.device(device):
            self._encoding = importlib.import_module("tinycudann").Encoding(3, settings, dtype=torch.float32)
        entries = levels[-1].offset + levels[-1].size
        if self._encoding.params.numel() != entries * config.hash_features:
            raise RuntimeError(
                f"tinycudann's hash grid has {self._encoding.params.numel()} numbers, ours {entries} x "
                f"{config.hash_features}; uninstall tinycudann to use torch's, and report its version"
            )

    def __call__(self, table: Tensor, where: Tensor, active: int) -> Tensor:
        """Features (F, active, m) of a table (F, entries) at positions (3, m) in [0, 1]; as `encode`."""
        flat = table.T.reshape(-1)  # its tables hold all features of an entry together
        found = torch.func.functional_call(self._encoding, {"params": flat}, (where.T.contiguous(),))
        return found.view(-1, self._levels, self._features)[:, :active].permute(2, 1, 0).contiguous()
