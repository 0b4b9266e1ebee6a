# SPDX-License-Identifier: GPL-3.0-or-later
"""A narrow network without biases, y = W_n relu(W_(n-1) ... relu(W_1 x)), its derivative, and the gradients of both.

Columns are points. Only the input is kept for the gradient: the hidden units of a piece of the points are computed
again in the cache, which takes less time than to write them to memory and to read them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

PIECE = {"cpu": 4096}  # points at a time: 64 hidden units of them are 1 MB
LARGE_PIECE = 2**18


def hidden_layers(weights: Sequence[Tensor], inputs: Tensor) -> list[Tensor]:
    """The inputs of every layer, of inputs (k, m)."""
    layers = [inputs]
    for weight in weights[:-1]:
        layers.append((weight @ layers[-1]).relu_())
    return layers


def backpropagate(
    weights: Sequence[Tensor], layers: Sequence[Tensor], gradient: Tensor, for_weights: Sequence[Tensor]
) -> Tensor:
    """The gradient (k, m) of the inputs, from that of y (outputs, m); adds those of the weights to `for_weights`."""
    for index in reversed(range(len(weights))):
        for_weights[index].addmm_(gradient, layers[index].T)
        gradient = weights[index].T @ gradient
        if index:
            gradient = _where_on(gradient, layers[index])
    return gradient


def slope_layers(weights: Sequence[Tensor], layers: Sequence[Tensor]) -> list[Tensor]:
    """dy / dx of the only output y: the last of the returned s_i = W_i^T [layer i on] s_(i+1), s_n = W_n^T.

    The others are [layer i on] s_(i+1), the deepest first.
    """
    slopes = [weights[-1].T.expand(-1, layers[0].shape[1])]
    for index in reversed(range(len(weights) - 1)):
        slopes[-1] = _where_on(slopes[-1], layers[index + 1])
        slopes.append(weights[index].T @ slopes[-1])
    return slopes


def backpropagate_slope(
    weights: Sequence[Tensor],
    layers: Sequence[Tensor],
    slopes: Sequence[Tensor],
    gradient: Tensor,
    for_weights: Sequence[Tensor],
) -> None:
    """Add the gradients of the weights to `for_weights`, from that (k, m) of `slope_layers`' last."""
    for index in range(len(weights) - 1):
        for_weights[index].addmm_(slopes[-2 - index], gradient.T)
        gradient = _where_on(weights[index] @ gradient, layers[index + 1])
    for_weights[-1].add_(gradient.sum(1))


def _where_on(gradient: Tensor, units: Tensor) -> Tensor:
    """The gradient where the unit is on, else 0, in one pass."""
    passed: Tensor = torch.ops.aten.threshold_backward(gradient, units, 0)
    return passed


def _pieces(points: Tensor) -> list[slice]:
    length = PIECE.get(points.device.type, LARGE_PIECE)
    return [slice(start, start + length) for start in range(0, points.shape[1], length)]


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, *weights)
        out = inputs.new_empty(len(weights[-1]), inputs.shape[1])
        for piece in _pieces(inputs):
            torch.mm(weights[-1], hidden_layers(weights, inputs[:, piece])[-1], out=out[:, piece])
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        (gradient,) = gradients
        inputs, *weights = ctx.saved_tensors
        for_inputs = torch.empty_like(inputs)
        for_weights = [torch.zeros_like(weight) for weight in weights]
        for piece in _pieces(inputs):
            layers = hidden_layers(weights, inputs[:, piece])
            for_inputs[:, piece] = backpropagate(weights, layers, gradient[:, piece], for_weights)
        return for_inputs, *for_weights


class ReluNetwork(nn.Module):
    """Layers of the given widths, inputs and outputs included; weights (outputs, inputs), as in nn.Linear."""

    def __init__(self, widths: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.weights = nn.ParameterList()
        for inputs, outputs in itertools.pairwise(widths):
            draws = torch.rand(outputs, inputs, generator=generator)
            self.weights.append(nn.Parameter((2 * draws - 1) / math.sqrt(inputs)))  # nn.Linear's range

    def with_first(self, first: Tensor) -> list[Tensor]:
        """The weights of all layers, with `first` (width, k) in the first place."""
        return [first, *list(self.weights)[1:]]

    def forward(self, inputs: Tensor, first: Tensor) -> Tensor:
        """Outputs (outputs, m) of inputs (k, m), with `first` (width, k) for the first layer's weights."""
        out: Tensor = _Network.apply(inputs, *self.with_first(first))
        return out
