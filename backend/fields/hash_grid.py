# SPDX-License-Identifier: GPL-3.0-or-later
"""A multi-resolution hash grid with two small networks: the field of Magic3D and of threestudio's recipes.

Density and albedo have a network each on the same features, as in threestudio's implicit volume. Levels can be switched
on from coarse to fine (threestudio's ProgressiveBandHashGrid; Li et al. 2023, "Neuralangelo"); a level that is off
costs nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config.schema import FieldConfig, OptimizerConfig
from .density import biased_density, density_bias, normal_potential
from .hash_density import density_with_slope
from .hash_encoding import HashTable, encode
from .hash_levels import active_levels, hash_levels
from .interfaces import Field, FieldSample
from .relu_network import ReluNetwork
from .tinycudann_encoding import TinyCudaEncoding, tinycudann_for

INITIAL = 1e-4  # entries start uniform in (-1e-4, 1e-4), as in the paper


class HashGridField(Field):
    """(tau, rho) = (act(N_tau(enc(mu))), sigmoid(N_rho(enc(mu)))) in the cube around the bounding sphere."""

    def __init__(self, config: FieldConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.bounding_radius = config.bounding_radius
        self.levels = hash_levels(config)
        entries = self.levels[-1].offset + self.levels[-1].size
        draws = torch.rand(config.hash_features, entries, generator=generator)
        self.table = nn.Parameter((2 * draws - 1) * INITIAL)
        hidden = [config.hash_hidden_width] * config.hash_hidden_layers
        inputs = config.hash_levels * config.hash_features
        self.density_network = ReluNetwork([inputs, *hidden, 1], generator)
        self.albedo_network = ReluNetwork([inputs, *hidden, 3], generator)
        self.progress = 0.0
        self.active = active_levels(config, 0.0)
        self._layout: HashTable | None = None
        self._kernels: TinyCudaEncoding | None = None

    def begin_step(self, progress: float) -> None:
        self.progress = progress
        self.active = active_levels(self.config, progress)
        # On a CPU the table's lookup is most of a query, and one serves density, albedo and normal.
        self.separate_density = self.table.is_cuda or self.config.normals == "finite-difference"

    # --- features and networks

    def _unit(self, mu: Tensor) -> Tensor:
        """Positions (3, m) in [0, 1] of mu (m, 3)."""
        return (mu.T / (2 * self.bounding_radius) + 0.5).clamp(0, 1).contiguous()

    def _on(self, device: torch.device, dtype: torch.dtype) -> HashTable:
        """The layout, and tinycudann's kernels where they can run, on the table's device."""
        if self._layout is None or self._layout.device != device or self._layout.dtype != dtype:
            self._layout = HashTable(self.levels, device, dtype)
            self._kernels = tinycudann_for(self.config, self.levels, device, dtype)
        return self._layout

    def _features(self, where: Tensor) -> Tensor:
        """(F active, m): all levels of the first feature, then of the next, at positions (3, m) in [0, 1]."""
        layout = self._on(self.table.device, self.table.dtype)
        if self._kernels is not None:
            return self._kernels(self.table, where, self.active).flatten(0, 1)
        return encode(self.table, where, layout, self.active).flatten(0, 1)

    def _first(self, network: ReluNetwork) -> Tensor:
        """The first layer's columns of the active levels, in the order of `_features`.

        Columns are stored as tiny-cuda-nn and threestudio order features: all features of the first level, then of the
        next.
        """
        weight = network.weights[0]
        columns = weight.view(len(weight), self.config.hash_levels, self.config.hash_features)[:, : self.active]
        return columns.transpose(1, 2).reshape(len(weight), -1)

    def _raw_density(self, where: Tensor) -> Tensor:
        raw: Tensor = self.density_network(self._features(where), self._first(self.density_network))
        return raw[0]

    # --- queries

    def density(self, mu: Tensor) -> Tensor:
        raw = self._raw_density(self._unit(mu))
        return biased_density(raw, density_bias(mu, self.config, self.progress), self.config)

    def appearance(self, mu: Tensor, with_normals: bool) -> tuple[Tensor, Tensor | None]:
        if with_normals and self.config.normals == "analytic":
            _, features, normal = self._analytic(mu)
            return self._albedo(features), normal
        return self._albedo(self._features(self._unit(mu))), self._difference_normals(mu) if with_normals else None

    def query(self, mu: Tensor, with_normals: bool) -> FieldSample:
        normal = None
        if with_normals and self.config.normals == "analytic":
            raw, features, normal = self._analytic(mu)
        else:
            features = self._features(self._unit(mu))
            raw = self.density_network(features, self._first(self.density_network))[0]
            normal = self._difference_normals(mu) if with_normals else None
        bias = density_bias(mu, self.config, self.progress)
        return FieldSample(biased_density(raw, bias, self.config), self._albedo(features), normal)

    def _albedo(self, features: Tensor) -> Tensor:
        return torch.sigmoid(self.albedo_network(features, self._first(self.albedo_network))).T

    def _potential(self, mu: Tensor) -> Tensor:
        bias = density_bias(mu, self.config, self.progress)
        return normal_potential(self._raw_density(self._unit(mu)), bias, self.config)

    def _difference_normals(self, mu: Tensor) -> Tensor:
        """Central differences of the potential, `normal_step` to either side of mu (m, 3) along each axis."""
        steps = self.config.normal_step * torch.eye(3, device=mu.device, dtype=mu.dtype)
        around = torch.cat([mu + step for step in steps] + [mu - step for step in steps])
        up, down = self._potential(around).view(2, 3, len(mu))
        return functional.normalize(down - up, dim=0, eps=1e-12).T

    def _analytic(self, mu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Raw densities (m,), features as `_features` orders them, and normals (m, 3) from the exact gradient."""
        layout = self._on(self.table.device, self.table.dtype)
        weights = self.density_network.with_first(self._first(self.density_network))
        features, raw, slope = density_with_slope(self.table, self._unit(mu), layout, self.active, weights)
        return raw, features.flatten(0, 1), self._normals(mu, raw, slope / (2 * self.bounding_radius))

    def _normals(self, mu: Tensor, raw: Tensor, of_raw: Tensor) -> Tensor:
        """-grad of the potential, normalized (m, 3), from raw densities (m,) and their gradient (3, m) in space."""
        differentiable = torch.is_grad_enabled()  # does the caller want gradients through the normals?
        with torch.enable_grad():
            place = mu.detach().requires_grad_()
            bias = density_bias(place, self.config, self.progress)
            (of_bias,) = torch.autograd.grad(bias.sum(), place)
            gradient = of_raw + of_bias.T
            if self.config.density_bias_on == "density":
                raw = raw if raw.requires_grad else raw.detach().requires_grad_()
                bias = bias.detach().requires_grad_()
                potential = normal_potential(raw, bias, self.config)
                by_raw, by_bias = torch.autograd.grad(potential.sum(), [raw, bias], create_graph=differentiable)
                gradient = by_raw * of_raw + by_bias.detach() * of_bias.T
            # functional.normalize takes ten times as long along the first axis.
            return (-gradient * gradient.square().sum(0).clamp(min=1e-24).rsqrt()).T

    def parameter_groups(self, optimizer: OptimizerConfig) -> list[dict[str, Any]]:
        network = list(self.density_network.parameters())
        return [
            {"params": [self.table], "rate_multiplier": 1.0},
            {"params": network, "rate_multiplier": optimizer.network_rate_multiplier},
            {"params": list(self.albedo_network.parameters()), "rate_multiplier": optimizer.color_rate_multiplier},
        ]
