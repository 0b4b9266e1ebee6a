# SPDX-License-Identifier: GPL-3.0-or-later
"""The paper's field: a ResNet MLP on integrated positional encodings with annealed covariance (appendix A.2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ..config.schedules import linear
from ..config.schema import FieldConfig
from .background import seeded_linear
from .density import biased_density, density_bias, normal_potential
from .encoding import integrated_encoding
from .interfaces import Field, FieldSample

CHUNK = 32768  # points evaluated at a time: with checkpointing, memory is that of one chunk


class ResidualBlock(nn.Module):
    """h + W2 silu(W1 silu(LayerNorm(h)))."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = seeded_linear(width, width, generator)
        self.second = seeded_linear(width, width, generator)

    def forward(self, hidden: Tensor) -> Tensor:
        inner = functional.silu(self.first(functional.silu(self.norm(hidden))))
        return hidden + self.second(inner)


class MipMlpField(Field):
    """(tau, rho) = MLP(IPE(mu)): ResNet blocks with LayerNorm between, exp density, sigmoid albedo (eq 6)."""

    def __init__(self, config: FieldConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.bounding_radius = config.bounding_radius
        self.entry = seeded_linear(6 * config.encoding_levels, config.hidden_width, generator)
        self.blocks = nn.ModuleList(ResidualBlock(config.hidden_width, generator) for _ in range(config.hidden_blocks))
        self.exit_norm = nn.LayerNorm(config.hidden_width)
        self.exit = seeded_linear(config.hidden_width, 4, generator)
        self.progress = 0.0

    def begin_step(self, progress: float) -> None:
        self.progress = progress

    @property
    def covariance_scale(self) -> float:
        """lambda_Sigma now (eq 8)."""
        config = self.config
        return linear(config.covariance_start, config.covariance_end, config.covariance_share, self.progress)

    def _raw(self, mu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Raw tau (m,), raw rho (m, 3) and the blob (m,) at mu (m, 3)."""
        hidden = self.entry(integrated_encoding(mu, self.covariance_scale, self.config.encoding_levels))
        for block in self.blocks:
            hidden = block(hidden)
        raw = self.exit(functional.silu(self.exit_norm(hidden)))
        return raw[:, 0], raw[:, 1:], density_bias(mu, self.config, self.progress)

    def _values(self, mu: Tensor) -> Tensor:
        """tau and rho: (m, 4)."""
        raw, raw_rho, bias = self._raw(mu)
        return torch.cat([biased_density(raw, bias, self.config)[:, None], torch.sigmoid(raw_rho)], dim=-1)

    def _values_and_normals(self, mu: Tensor) -> Tensor:
        """tau, rho and n = -grad tau / |grad tau|: (m, 7), differentiable twice."""
        differentiable = torch.is_grad_enabled()  # does the caller want gradients through the normals?
        with torch.enable_grad():
            where = mu.detach().requires_grad_()
            raw, raw_rho, bias = self._raw(where)
            potential = normal_potential(raw, bias, self.config)
            gradient = torch.autograd.grad(potential.sum(), where, create_graph=differentiable)[0]
        normal = functional.normalize(-gradient, dim=-1, eps=1e-6)
        tau = biased_density(raw, bias, self.config)
        return torch.cat([tau[:, None], torch.sigmoid(raw_rho), normal], dim=-1)

    def _in_chunks(self, function: Callable[[Tensor], Tensor], mu: Tensor) -> Tensor:
        parts = mu.split(CHUNK) if len(mu) else (mu,)
        if not torch.is_grad_enabled():
            return torch.cat([function(part) for part in parts])
        if len(parts) == 1:
            return function(mu)
        return torch.cat([checkpoint(function, part, use_reentrant=False) for part in parts])

    def density(self, mu: Tensor) -> Tensor:
        return self._in_chunks(self._values, mu)[:, 0]

    def query(self, mu: Tensor, with_normals: bool) -> FieldSample:
        values = self._in_chunks(self._values_and_normals if with_normals else self._values, mu)
        return FieldSample(values[:, 0], values[:, 1:4], values[:, 4:7] if with_normals else None)
