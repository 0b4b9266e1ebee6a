# SPDX-License-Identifier: GPL-3.0-or-later
"""Albedo of a mesh's vertices, and the one conversion between display sRGB and linear RGB."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .extract import CHUNK, DensityField, field_device
from .topology import FloatArray

OFFSETS = tuple(step / 3.0 for step in range(-1, 9))  # cells along the inward normal, from just outside to 2.7 deep


class AlbedoField(DensityField, Protocol):
    """A field that also answers with albedo: FieldSample(tau (m,), rho (m, 3) display sRGB, normal)."""

    def query(self, mu: Tensor, with_normals: bool) -> Any: ...


def display_to_linear(display: FloatArray) -> FloatArray:
    """IEC 61966-2-1: c / 12.92 below 0.04045, else ((c + 0.055) / 1.055)^2.4. Any shape, [0, 1] -> [0, 1]."""
    display = np.clip(np.asarray(display), 0.0, 1.0)
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)


def linear_to_display(linear: FloatArray) -> FloatArray:
    """Inverse of `display_to_linear`: 12.92 c below 0.0031308, else 1.055 c^(1 / 2.4) - 0.055. Any shape, [0, 1]."""
    linear = np.clip(np.asarray(linear), 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1.0 / 2.4) - 0.055)


@torch.no_grad()
def sample_albedo(field: AlbedoField, vertices: FloatArray, normals: FloatArray, cell: float) -> FloatArray:
    """rho that a camera facing each vertex sees: sum w_i rho_i / sum w_i (eq 5) along the inward normal.

    vertices, normals (V, 3) in scene units, `cell` the grid's spacing -> (V, 3) display sRGB in [0, 1]. The value at
    the surface itself is poorly supervised, being mostly empty there. A ray too thin to gather any weight takes the
    plain mean of its samples.
    """
    offsets = torch.tensor(OFFSETS, dtype=torch.float32) * cell
    step = float(offsets[1] - offsets[0])
    device = field_device(field)
    limit = 0.999 * float(field.bounding_radius)
    out = np.zeros((len(vertices), 3), dtype=np.float64)
    rows_per_query = max(1, CHUNK // len(offsets))
    for start in range(0, len(vertices), rows_per_query):
        rows = slice(start, start + rows_per_query)
        origin = torch.from_numpy(np.asarray(vertices[rows], dtype=np.float32))
        inward = -torch.from_numpy(np.asarray(normals[rows], dtype=np.float32))
        mu = origin[:, None] + offsets[:, None] * inward[:, None]
        mu = mu * (limit / mu.norm(dim=-1, keepdim=True).clamp(min=limit))  # the field is defined inside its sphere
        sample = field.query(mu.reshape(-1, 3).to(device), with_normals=False)
        optical = sample.tau.reshape(mu.shape[:2]).float().cpu().clamp(min=0) * step
        transmittance = torch.exp(-(torch.cumsum(optical, dim=1) - optical))
        weights = -torch.expm1(-optical) * transmittance + 1e-6
        rho = sample.rho.reshape(*mu.shape).float().cpu()
        mean = (weights[..., None] * rho).sum(dim=1) / weights.sum(dim=1, keepdim=True)
        out[rows] = mean.clamp(0, 1).numpy()
    return out
