# SPDX-License-Identifier: GPL-3.0-or-later
"""The compiled loops of `hash_kernels` on tensors: all active levels of a float32 table on the CPU.

Threads take whole levels. Each level's sums run over the points in their order, so that no result depends on the number
of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import hash_kernels as kernels
from .compiled_loops import array, run_parts
from .hash_encoding import HashTable


def _level(layout: HashTable, number: int) -> tuple[Any, ...]:
    level = layout.levels[number]
    return number, np.float32(level.scale), level.resolution, level.size, level.offset, level.hashed


def _on_levels(loop: Any, layout: HashTable, active: int, *tensors: Tensor) -> None:
    """Run a loop on each active level; it fills or adds to the last of the tensors, which have to be contiguous."""
    arrays = [array(tensor) for tensor in tensors]
    run_parts(lambda number: loop(_level(layout, number), *arrays), active)


def encode_into(out: Tensor, table: Tensor, where: Tensor, layout: HashTable) -> None:
    """Fill `out` (F, active, m), contiguous, with the features of a table (F, entries) at (3, m) in [0, 1]."""
    _on_levels(kernels.encode_level, layout, out.shape[1], table, where, out)


def add_gradient(total: Tensor, where: Tensor, gradient: Tensor, layout: HashTable) -> None:
    """Add the gradient (F, active, m) of the features to that of the table, total (F, entries), contiguous."""
    _on_levels(kernels.add_level_gradient, layout, gradient.shape[1], where, gradient, total)


def slope_of(table: Tensor, where: Tensor, factors: Tensor, layout: HashTable) -> Tensor:
    """sum over f, l of factors[f, l] d enc[f, l] / dx: (3, m), factors (F, active, m)."""
    active = factors.shape[1]
    of_levels = torch.empty(active, *where.shape)
    _on_levels(kernels.slope_of_level, layout, active, table, where, factors, of_levels)
    return of_levels.sum(0)


def add_slope_gradient(
    total: Tensor,
    table: Tensor,
    where: Tensor,
    pulled: Tensor,
    factors: Tensor,
    of_slope: Tensor,
    layout: HashTable,
) -> Tensor:
    """The gradient (F, active, m) of `slope_of`'s factors; adds the table's to total (F, entries), contiguous.

    pulled (F, active, m) and of_slope (3, m) are the gradients of the features and of the slope.
    """
    of_factors = torch.empty_like(factors, memory_format=torch.contiguous_format)
    _on_levels(
        kernels.add_level_slope_gradient,
        layout,
        factors.shape[1],
        table,
        where,
        pulled,
        factors,
        of_slope,
        of_factors,
        total,
    )
    return of_factors
