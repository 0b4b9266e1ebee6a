# SPDX-License-Identifier: GPL-3.0-or-later
"""A field as dense grids, and whether compiled loops can render it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..config.schema import FieldConfig, RenderConfig


@dataclass(frozen=True)
class DenseGrids:
    """A field as two grids over the cube around the bounding sphere, vertices on its faces, axes (z, y, x).

    raw (1, 1, R, R, R): tau = scale * act(raw), in 1 / scene unit, where act is interpolated raw's `activation`.
    appearance (1, 3 or 6, R, R, R): rho before the sigmoid, then the outward normals of any length.
    """

    raw: Tensor
    appearance: Tensor
    activation: Literal["exp", "softplus"]
    scale: float


def compiled_fault(field: FieldConfig, device: torch.device) -> str:
    """Why the compiled loops cannot render this field on this device; "" when they can."""
    if device.type != "cpu":
        return "the run is not on the CPU"
    if field.kind != "voxels":
        return f"field.kind is {field.kind}, and they are for voxels"
    if field.density_bias_on != "raw":
        return f"field.density_bias_on is {field.density_bias_on}, and they know raw only"
    return ""


def is_compiled(render: RenderConfig, field: FieldConfig, device: torch.device | str) -> bool:
    """Whether the compiled loops of `rendering.voxel_renderer` render this field on this device."""
    return render.marching in ("auto", "compiled") and not compiled_fault(field, torch.device(device))
