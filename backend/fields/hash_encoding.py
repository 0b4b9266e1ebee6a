# SPDX-License-Identifier: GPL-3.0-or-later
"""Multi-resolution hash encoding of positions, in torch on any device.

    enc[f, l](x) = sum over the 8 vertices v of x's cell of level l: w_v(x) table[f, index_l(v)]
    index_l(x, y, z) = (x + y r + z r^2) mod size, or (x xor 2654435761 y xor 805459861 z) mod size where r^3 > size

The gradient is written by hand: it adds each corner's share to the table, without a tensor of rows. Corners come first
and points last in every tensor, so that each operation runs over contiguous points. Points are processed in pieces that
stay in the processor's cache. `hash_density.py` adds the derivative.

Float32 tables on a CPU go through the compiled loops of `hash_loops.py` instead, which do the same sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .hash_levels import Level

PRIMES = (1, 2654435761, 805459861)
PIECE = {"cpu": 65_536}  # points times levels at a time: 8 corners of them are 2 MB a tensor
LARGE_PIECE = 2**24


@dataclass(frozen=True)
class Part:
    """Levels that share one rule of indexing. Entries count from `first`; tensors are (levels, 1), int32."""

    levels: slice
    entries: slice
    hashed: bool
    scale: Tensor
    size: Tensor
    stride: Tensor  # (3, levels, 1): steps of the index along x, y, z
    offset: Tensor


class HashTable:
    """How positions find entries of a table of these levels, on one device and with one dtype of positions."""

    def __init__(self, levels: Sequence[Level], device: torch.device, dtype: torch.dtype) -> None:
        self.levels, self.device, self.dtype = tuple(levels), device, dtype
        dense = sum(not level.hashed for level in levels)
        self._parts = [self._part(start, end) for start, end in ((0, dense), (dense, len(levels))) if end > start]

    def _part(self, start: int, end: int) -> Part:
        levels = self.levels[start:end]
        hashed, first = levels[0].hashed, levels[0].offset

        def column(numbers: Sequence[int]) -> Tensor:
            wrapped = [(n + 2**31) % 2**32 - 2**31 for n in numbers]  # the hash keeps the low bits of 32
            return torch.tensor(wrapped, dtype=torch.int32, device=self.device)[:, None]

        strides = [PRIMES if hashed else (1, level.resolution, level.resolution**2) for level in levels]
        return Part(
            slice(start, end),
            slice(first, levels[-1].offset + levels[-1].size),
            hashed,
            torch.tensor([level.scale for level in levels], dtype=self.dtype, device=self.device)[:, None],
            column([level.size for level in levels]),
            torch.stack([column([stride[axis] for stride in strides]) for axis in range(3)]),
            column([level.offset - first for level in levels]),
        )

    def parts(self, active: int) -> Iterator[Part]:
        """The parts that hold the `active` coarsest levels, cut to them."""
        for part in self._parts:
            count = min(active, part.levels.stop) - part.levels.start
            if count > 0:
                kept = slice(0, count)
                yield Part(
                    slice(part.levels.start, part.levels.start + count),
                    part.entries,
                    part.hashed,
                    part.scale[kept],
                    part.size[kept],
                    part.stride[:, kept],
                    part.offset[kept],
                )

    def pieces(self, count: int, active: int) -> Iterator[slice]:
        """Slices of `count` points."""
        length = max(256, PIECE.get(self.device.type, LARGE_PIECE) // active)
        for start in range(0, count, length):
            yield slice(start, min(count, start + length))


def cells(part: Part, where: Tensor) -> tuple[Tensor, Tensor]:
    """Entries (2, 2, 2, levels, m), corners along z, y, x, and the place in the cell (3, levels, m) of (3, m)."""
    place = where[:, None] * part.scale + 0.5
    cell = place.floor()
    place -= cell
    low = cell.int() * part.stride
    both = torch.stack([low, low + part.stride])  # (2, 3, levels, m)
    if part.hashed:
        both &= part.size - 1  # a power of two; xor keeps its bits apart from those of the level's offset
        both[:, 0] |= part.offset
        planes = both[None, :, 1] ^ both[:, None, 2]
        return both[None, None, :, 0] ^ planes[:, :, None], place
    both[:, 0] += part.offset
    planes = both[None, :, 1] + both[:, None, 2]
    index = both[None, None, :, 0] + planes[:, :, None]
    # The last vertex of an integer scale lies one layer beyond the table and wraps, as in tiny-cuda-nn.
    index -= (index >= part.offset + part.size) * part.size
    return index, place


def sides_of(place: Tensor) -> Tensor:
    """(2, 3, levels, m): the weights of the lower and of the upper vertices along x, y, z."""
    return torch.stack([1 - place, place])


def corner_weights(sides: Tensor) -> Tensor:
    """Trilinear weights (2, 2, 2, levels, m), corners along z, y, x."""
    planes = sides[:, None, 2] * sides[None, :, 1]
    return planes[:, :, None] * sides[None, None, :, 0]


def weight_slopes(sides: Tensor, along: Tensor) -> Tensor:
    """d weights in the direction `along` (3, levels, m), in cells: (2, 2, 2, levels, m)."""
    signed = torch.stack([-along, along])  # (2, 3, levels, m)
    x, y, z = sides[:, 0], sides[:, 1], sides[:, 2]
    dx, dy, dz = signed[:, 0], signed[:, 1], signed[:, 2]
    moved = z[:, None] * dy[None] + dz[:, None] * y[None]
    planes = z[:, None] * y[None]
    return moved[:, :, None] * x[None, None] + planes[:, :, None] * dx[None, None]


def corner_values(table: Tensor, part: Part, index: Tensor, feature: int) -> Tensor:
    """The table's values of one feature at the corners, of index's shape."""
    return table[feature, part.entries].index_select(0, index.view(-1)).view(index.shape)


def takes_loops(table: Tensor, where: Tensor) -> bool:
    """Whether the compiled loops of `hash_loops` can serve this table and these positions."""
    return all(values.device.type == "cpu" and values.dtype == torch.float32 for values in (table, where))


class _Encoding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, where: Tensor, layout: HashTable, active: int) -> Tensor:
        ctx.save_for_backward(where)
        ctx.layout, ctx.active, ctx.shape = layout, active, table.shape
        out = table.new_empty(len(table), active, where.shape[1])
        if takes_loops(table, where):
            from . import hash_loops  # loads the compiler, which takes a second

            hash_loops.encode_into(out, table, where, layout)
            return out
        for piece in layout.pieces(where.shape[1], active):
            for part in layout.parts(active):
                index, place = cells(part, where[:, piece])
                weights = corner_weights(sides_of(place))
                for feature in range(len(table)):
                    found = corner_values(table, part, index, feature).mul_(weights)
                    torch.sum(found.flatten(0, 2), 0, out=out[feature, part.levels, piece])
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        (where,) = ctx.saved_tensors
        total = gradient.new_zeros(ctx.shape)
        if takes_loops(gradient, where) and not torch.is_grad_enabled():  # enabled: a gradient of this gradient
            from . import hash_loops

            hash_loops.add_gradient(total, where, gradient, ctx.layout)
            return total, None, None, None
        for piece in ctx.layout.pieces(where.shape[1], ctx.active):
            for part in ctx.layout.parts(ctx.active):
                index, place = cells(part, where[:, piece])
                weights, rows = corner_weights(sides_of(place)), index.view(-1).long()
                for feature in range(len(total)):
                    shares = weights * gradient[feature, part.levels, piece]
                    total[feature, part.entries].scatter_add_(0, rows, shares.view(-1))
        return total, None, None, None


def encode(table: Tensor, where: Tensor, layout: HashTable, active: int) -> Tensor:
    """Features (F, active, m) of the coarsest `active` levels, of a table (F, entries) at positions (3, m) in [0, 1].

    The gradient reaches the table, not the positions.
    """
    features: Tensor = _Encoding.apply(table, where, layout, active)
    return features
