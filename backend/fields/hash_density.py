# SPDX-License-Identifier: GPL-3.0-or-later
"""The hash grid's raw density together with its derivative in space, from one look at the table.

    raw(x) = N(enc(x)),  d raw / dx = sum over f, l of (dN / d enc[f, l]) d enc[f, l] / dx

A normal needs the derivative, and a loss on it needs that derivative's gradient. Autograd's second order would keep
many tensors a point; here both are written out, and a piece of the points passes through all of it in the cache.
Where the compiled loops of `hash_loops.py` can run, they do what is left of a piece without the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .hash_encoding import HashTable, Part, cells, corner_values, corner_weights, sides_of, takes_loops, weight_slopes
from .relu_network import backpropagate, backpropagate_slope, hidden_layers, slope_layers


@dataclass(frozen=True)
class _Cells:
    """Where points of a piece are in the levels of one part: entries and values at the corners, and their sides."""

    part: Part
    index: Tensor
    sides: Tensor
    values: list[Tensor]  # of each feature


def _look_up(table: Tensor, where: Tensor, layout: HashTable, active: int) -> list[_Cells]:
    found = []
    for part in layout.parts(active):
        index, place = cells(part, where)
        values = [corner_values(table, part, index, feature) for feature in range(len(table))]
        found.append(_Cells(part, index, sides_of(place), values))
    return found


def _slope(cell: _Cells, factors: Tensor) -> Tensor:
    """sum over f, l of factors[f, l] d enc[f, l] / dx: (3, m), over the levels of one part, factors (F, levels, m)."""
    mixed = cell.values[0] * factors[0]
    for values, factor in zip(cell.values[1:], factors[1:], strict=True):
        mixed += values * factor
    x, y, z = cell.sides.unbind(1)  # (2, levels, m) each
    along_z = torch.sum((mixed[1] - mixed[0]).mul_(y[:, None] * x[None]), (0, 1))
    across = torch.addcmul(mixed[0] * z[0], mixed[1], z[1])  # (y, x, levels, m)
    along_y = torch.sum((across[1] - across[0]).mul_(x), 0)
    edge = torch.addcmul(across[0] * y[0], across[1], y[1])
    return (torch.stack([edge[1] - edge[0], along_y, along_z]) * cell.part.scale).sum(1)


class _DensityWithSlope(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, table: Tensor, where: Tensor, layout: HashTable, active: int, *weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        points = where.shape[1]
        features, raw = table.new_empty(len(table), active, points), table.new_empty(1, points)
        slope = torch.empty_like(where)
        looped = takes_loops(table, where)
        if looped:
            from . import hash_loops  # loads the compiler, which takes a second

            hash_loops.encode_into(features, table, where, layout)
        for piece in layout.pieces(points, active):
            found = [] if looped else _look_up(table, where[:, piece], layout, active)
            for cell in found:
                shares = corner_weights(cell.sides)
                for feature, values in enumerate(cell.values):
                    features[feature, cell.part.levels, piece] = (values * shares).flatten(0, 2).sum(0)
            layers = hidden_layers(weights, features[:, :, piece].flatten(0, 1))
            raw[:, piece] = weights[-1] @ layers[-1]
            factors = slope_layers(weights, layers)[-1].view(len(table), active, -1)
            if looped:
                slope[:, piece] = hash_loops.slope_of(table, where[:, piece], factors, layout)
            else:
                slope[:, piece] = sum(_slope(cell, factors[:, cell.part.levels]) for cell in found)
        ctx.save_for_backward(table, where, features, *weights)
        ctx.layout, ctx.active = layout, active
        return features, raw[0], slope

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_features, of_raw, of_slope = gradients
        table, where, features, *weights = ctx.saved_tensors
        layout, active = ctx.layout, ctx.active
        total, for_weights = torch.zeros_like(table), [torch.zeros_like(weight) for weight in weights]
        looped = takes_loops(table, where) and not torch.is_grad_enabled()  # enabled: a gradient of this gradient
        if looped:
            from . import hash_loops
        for piece in layout.pieces(where.shape[1], active):
            found = [] if looped else _look_up(table, where[:, piece], layout, active)
            layers = hidden_layers(weights, features[:, :, piece].flatten(0, 1))
            shape = len(table), active, layers[0].shape[1]
            pulled = backpropagate(weights, layers, of_raw[None, piece], for_weights).view(shape)
            pulled = pulled + of_features[:, :, piece]
            slopes = slope_layers(weights, layers)
            factors = slopes[-1].view(shape)
            if looped:
                of_factors = hash_loops.add_slope_gradient(
                    total, table, where[:, piece], pulled, factors, of_slope[:, piece], layout
                )
            else:
                of_factors = torch.empty_like(pulled)
            for cell in found:
                levels, entries = cell.part.levels, cell.part.entries
                shares = corner_weights(cell.sides)
                moved = weight_slopes(cell.sides, of_slope[:, None, piece] * cell.part.scale)
                rows = cell.index.view(-1).long()
                for feature, values in enumerate(cell.values):
                    of_factors[feature, levels] = (values * moved).flatten(0, 2).sum(0)
                    added = torch.addcmul(shares * pulled[feature, levels], moved, factors[feature, levels])
                    total[feature, entries].scatter_add_(0, rows, added.view(-1))
            backpropagate_slope(weights, layers, slopes, of_factors.flatten(0, 1), for_weights)
        return total, None, None, None, *for_weights


def density_with_slope(
    table: Tensor, where: Tensor, layout: HashTable, active: int, weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """enc (F, active, m), raw density (m,) and d raw / dx (3, m) at positions x (3, m) in [0, 1].

    table (F, entries); `weights` of a network with one output. At a cell's wall the slope is that of the upper cell.
    The gradients of all three reach the table and the weights, not the positions.
    """
    found: tuple[Tensor, Tensor, Tensor] = _DensityWithSlope.apply(table, where, layout, active, *weights)
    return found
