# SPDX-License-Identifier: GPL-3.0-or-later
"""The renderer of a field on a device: compiled loops for voxels on a CPU, nerfacc on a GPU, else plain PyTorch."""

from __future__ import annotations

import torch

from ..config.schema import FieldConfig, RenderConfig
from ..errors import ConfigError
from ..fields.dense_grids import compiled_fault, is_compiled
from .marching import MARCHERS, choose_marching
from .renderer import Renderer


def build_renderer(render: RenderConfig, field: FieldConfig, device: torch.device | str) -> tuple[Renderer, str]:
    """The renderer for `render.marching`, on the device, and a warning ("" without) when a faster one cannot run.

    Raises ConfigError when what is demanded cannot run.
    """
    device = torch.device(device)
    if is_compiled(render, field, device):
        from .voxel_renderer import VoxelRenderer  # loads the compiler, which takes a second

        return VoxelRenderer(render, field.bounding_radius), ""
    if render.marching == "compiled":
        fault = compiled_fault(field, device)
        raise ConfigError(f"render.marching is compiled, but {fault}; allowed here are auto and dense; change it")
    marching, warning = choose_marching(render.marching, device)
    return Renderer(render, field.bounding_radius, MARCHERS[marching]).to(device), warning
