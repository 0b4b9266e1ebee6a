# SPDX-License-Identifier: GPL-3.0-or-later
"""Diffuse shading by one point light and ambient light (eq 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..config.schema import ShadingConfig

ShadingKind = Literal["albedo", "shaded", "textureless"]


@dataclass(frozen=True)
class Shading:
    """How one view is lit: ambient is l_a, diffuse is l_rho, both gray; "textureless" also sets rho = 1."""

    kind: ShadingKind = "albedo"
    ambient: float = 1.0
    diffuse: float = 0.0


def sample_shading(config: ShadingConfig, progress: float, generator: torch.Generator) -> Shading:
    """The paper's schedule: ambient only at first, then shaded, and of the shaded ones some textureless."""
    draws = torch.rand(3, generator=generator)
    if progress < config.albedo_only_share or float(draws[0]) >= config.shaded_probability:
        return Shading()
    textureless = float(draws[1]) < config.textureless_probability
    ambient, diffuse = config.ambient, config.diffuse
    if config.ambient_max > config.ambient:
        ambient += (config.ambient_max - config.ambient) * float(draws[2])
        diffuse = 1 - ambient
    return Shading("textureless" if textureless else "shaded", ambient, diffuse)


def shade(rho: Tensor, normal: Tensor, mu: Tensor, light: Tensor, ambient: Tensor, diffuse: Tensor) -> Tensor:
    """c = rho o (l_rho max(0, n.(l - mu) / |l - mu|) + l_a) (eq 7).

    rho, normal, mu and light (m, 3); ambient and diffuse (m, 1) gray. Returns (m, 3).
    """
    toward = functional.normalize(light - mu, dim=-1)
    lambert = (normal * toward).sum(dim=-1, keepdim=True).clamp(min=0)
    return rho * (diffuse * lambert + ambient)
