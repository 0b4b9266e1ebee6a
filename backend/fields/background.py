# SPDX-License-Identifier: GPL-3.0-or-later
"""Backgrounds: a second MLP on the encoded ray direction, one learned color, or random plain colors."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from ..config.schema import BackgroundConfig


def encode_direction(directions: Tensor, levels: int) -> Tensor:
    """sin and cos of 2^l pi d for l < levels, and d itself: (..., 3) -> (..., 3 + 6 levels)."""
    scales = math.pi * 2.0 ** torch.arange(levels, device=directions.device, dtype=directions.dtype)
    angles = (directions[..., None, :] * scales[:, None]).flatten(-2)
    return torch.cat([directions, angles.sin(), angles.cos()], dim=-1)


class MlpBackground(nn.Module):
    """Environment map: color (m, 3) in [0, 1] of unit directions (m, 3)."""

    def __init__(self, config: BackgroundConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.levels = config.encoding_levels
        widths = [3 + 6 * self.levels, config.hidden_width, config.hidden_width, 3]
        self.layers = nn.ModuleList(seeded_linear(a, b, generator) for a, b in itertools.pairwise(widths))

    def forward(self, directions: Tensor) -> Tensor:
        hidden = encode_direction(directions, self.levels)
        for layer in self.layers[:-1]:
            hidden = torch.nn.functional.silu(layer(hidden))
        return torch.sigmoid(self.layers[-1](hidden))


class ConstantBackground(nn.Module):
    """One learned color in all directions."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(3))

    def forward(self, directions: Tensor) -> Tensor:
        return torch.sigmoid(self.raw).expand(*directions.shape[:-1], 3)


def plain_colors(draws: Tensor, config: BackgroundConfig) -> tuple[Tensor, Tensor]:
    """Random plain backgrounds (n, 3), display sRGB, and which views (n,) use one, from `draws` (n, 4) in [0, 1).

    The last draw decides: below random_probability the view uses one; below random_any_share of that it is any color;
    otherwise it lies in [random_min, random_max] and is gray if `random_kind` is "grey".
    """
    ranged = config.random_min + (config.random_max - config.random_min) * draws[:, :3]
    if config.random_kind == "grey":
        ranged = ranged[:, :1].expand(-1, 3)
    any_color = draws[:, 3:] < config.random_probability * config.random_any_share
    return torch.where(any_color, draws[:, :3], ranged), draws[:, 3] < config.random_probability


def seeded_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """nn.Linear with its default initialization, drawn from a generator instead of the global one."""
    with torch.random.fork_rng(devices=[]):
        layer = nn.Linear(inputs, outputs)
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.copy_((torch.rand(layer.weight.shape, generator=generator) * 2 - 1) * bound)
        layer.bias.copy_((torch.rand(layer.bias.shape, generator=generator) * 2 - 1) * bound)
    return layer
