# SPDX-License-Identifier: GPL-3.0-or-later
"""What is optimized: a field of density and albedo, and the background behind it."""

from __future__ import annotations

import torch
from torch import nn

from ..config.schema import BackgroundConfig, FieldConfig
from .background import ConstantBackground, MlpBackground
from .interfaces import Field, FieldSample
from .voxels import VoxelField

__all__ = ["Field", "FieldSample", "build_background", "build_field"]


def build_field(config: FieldConfig, generator: torch.Generator) -> Field:
    """A freshly initialized field of the configured kind."""
    if config.kind == "voxels":
        return VoxelField(config, generator)
    if config.kind == "hash-grid":
        from .hash_grid import HashGridField

        return HashGridField(config, generator)
    from .mip_mlp import MipMlpField

    return MipMlpField(config, generator)


def build_background(config: BackgroundConfig, generator: torch.Generator) -> nn.Module:
    """A background that maps unit directions (m, 3) to colors (m, 3) in [0, 1]."""
    return MlpBackground(config, generator) if config.kind == "mlp" else ConstantBackground()
