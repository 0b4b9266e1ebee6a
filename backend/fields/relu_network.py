# SPDX-License-Identifier: GPL-3.0-or-later
"""A narrow network without biases: y = W_n relu(W_(n-1) ... relu(W_1 x)), for many points in little memory.

Only the input is kept for the gradient: the hidden units of a piece of the points are computed again in the cache,
which takes less time than to write them to memory and to read them.
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


def _pieces(where: Tensor) -> list[slice]:
    length = PIECE.get(where.device.type, LARGE_PIECE)
    return [slice(start, start + length) for start in range(0, where.shape[1], length)]


def _hidden(weights: Sequence[Tensor], inputs: Tensor) -> list[Tensor]:
    """The inputs of every layer."""
    layers = [inputs]
    for weight in weights[:-1]:
        layers.append((weight @ layers[-1]).relu_())
    return layers


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, *weights)
        out = inputs.new_empty(len(weights[-1]), inputs.shape[1])
        for piece in _pieces(inputs):
            out[:, piece] = weights[-1] @ _hidden(weights, inputs[:, piece])[-1]
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        (gradient,) = gradients
        inputs, *weights = ctx.saved_tensors
        for_inputs = torch.empty_like(inputs)
        for_weights = [torch.zeros_like(weight) for weight in weights]
        for piece in _pieces(inputs):
            layers, current = _hidden(weights, inputs[:, piece]), gradient[:, piece]
            for index in reversed(range(len(weights))):
                for_weights[index].addmm_(current, layers[index].T)
                current = weights[index].T @ current
                if index:
                    current *= layers[index] > 0
            for_inputs[:, piece] = current
        return for_inputs, *for_weights


class ReluNetwork(nn.Module):
    """Layers of the given widths, inputs and outputs included; weights (outputs, inputs), as in nn.Linear."""

    def __init__(self, widths: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.weights = nn.ParameterList()
        for inputs, outputs in itertools.pairwise(widths):
            draws = torch.rand(outputs, inputs, generator=generator)
            self.weights.append(nn.Parameter((2 * draws - 1) / math.sqrt(inputs)))  # nn.Linear's range

    def forward(self, inputs: Tensor, first: Tensor) -> Tensor:
        """Outputs (outputs, m) of inputs (k, m), with `first` (width, k) for the first layer's weights."""
        out: Tensor = _Network.apply(inputs, first, *list(self.weights)[1:])
        return out

    def slope(self, inputs: Tensor, first: Tensor) -> Tensor:
        """d y / d inputs (k, m) of the only output y, at inputs (k, m). Differentiable in the weights."""
        weights = [first, *list(self.weights)[1:]]
        with torch.no_grad():
            layers = _hidden(weights, inputs)
        slope = weights[-1].T.expand(-1, inputs.shape[1])
        for index in reversed(range(len(weights) - 1)):
            slope = weights[index].T @ (slope * (layers[index + 1] > 0))
        return slope
