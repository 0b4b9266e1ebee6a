# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes of the levels of a multi-resolution hash grid (Mueller et al. 2022, "Instant Neural Graphics Primitives").

The conventions are those of tiny-cuda-nn, so that its kernels read the same table: level l has the scale
base growth^l - 1, ceil(scale) + 1 vertices a side, and a position x in [0, 1] lies at x scale + 1/2. A level whose
vertices fit the table is indexed densely, and a finer one by the hash of the vertex.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..config.schema import FieldConfig
from ..errors import ConfigError

FINEST = 65_536  # vertices a side; beyond, float32 places a position no better than within 1% of a cell


@dataclass(frozen=True)
class Level:
    """scale: cells that [0, 1] spans. resolution: vertices a side. size: entries. offset: first entry of the table."""

    scale: float
    resolution: int
    size: int
    offset: int

    @property
    def hashed(self) -> bool:
        """Whether it has more vertices than entries."""
        return self.resolution**3 > self.size


def hash_levels(config: FieldConfig) -> tuple[Level, ...]:
    """The levels, the coarsest first. Raises ConfigError when the finest has more than 65,536 vertices a side."""
    growth = torch.tensor(config.hash_growth, dtype=torch.float32).log2()
    levels: list[Level] = []
    for index in range(config.hash_levels):
        # In float32, as in tiny-cuda-nn: another rounding may give another number of vertices.
        scale = float(torch.exp2(index * growth) * config.hash_base_resolution - 1)
        if scale > FINEST - 1:
            raise ConfigError(
                f"level {index + 1} of field.hash_levels={config.hash_levels} has more than {FINEST} vertices a side; "
                "lower field.hash_levels, field.hash_growth or field.hash_base_resolution"
            )
        resolution = math.ceil(scale) + 1
        size = min(8 * math.ceil(resolution**3 / 8), 2**config.hash_log2_size)
        offset = levels[-1].offset + levels[-1].size if levels else 0
        levels.append(Level(scale, resolution, size, offset))
    return tuple(levels)


def active_levels(config: FieldConfig, progress: float) -> int:
    """How many of the coarsest levels are seen at progress in [0, 1]; the features of the others count as zero.

    `hash_start_level` until `hash_start_share`, and one more after each further `hash_level_interval`.
    """
    if config.hash_start_level == 0:
        return config.hash_levels
    since = max(0.0, progress - config.hash_start_share)
    # 0.15 / 0.05 is below 3 in float64.
    return min(config.hash_levels, config.hash_start_level + math.floor(since / config.hash_level_interval + 1e-9))
