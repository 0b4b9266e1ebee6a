# SPDX-License-Identifier: GPL-3.0-or-later
"""The background that a run has learned, as an image of all directions for a Blender World."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..config.schema import BackgroundConfig
from ..errors import CheckpointError
from ..fields import build_background
from ..scenes.initial_field import read_initial_field
from ..scenes.state_tensors import without_prefix

WIDTH = 1024  # pixels; the network's finest frequency, 2^3 pi, has 8 periods around
PER_LEVEL = 6  # inputs of the network: sine and cosine in three axes


def equirectangular_directions(width: int) -> Tensor:
    """Unit directions (width / 2, width, 3) of the pixel centers of an image as Blender's Environment Texture reads it.

    The middle is +X, a quarter of the width to its left +Y, row 0 looks up: u = 1/2 - atan2(y, x) / 2 pi.
    """
    u = (torch.arange(width, dtype=torch.float64) + 0.5) / width
    v = (torch.arange(width // 2, dtype=torch.float64) + 0.5) / (width // 2)
    azimuth, elevation = (2 * torch.pi * (0.5 - u))[None, :], (torch.pi * (0.5 - v))[:, None]
    level = elevation.cos()
    directions = [level * azimuth.cos(), level * azimuth.sin(), elevation.sin().expand(-1, width)]
    return torch.stack(directions, -1).float()


def background_of(tensors: Mapping[str, Tensor]) -> nn.Module:
    """The background of a run's field, of the kind that its tensors show. Raises CheckpointError."""
    found = without_prefix("background.", tensors)
    config = BackgroundConfig(kind="constant")
    if "layers.0.weight" in found:
        hidden, inputs = found["layers.0.weight"].shape
        config = BackgroundConfig(kind="mlp", encoding_levels=(inputs - 3) // PER_LEVEL, hidden_width=hidden)
    background = build_background(config, torch.Generator().manual_seed(0))
    try:
        background.load_state_dict(found)
    except RuntimeError as error:
        raise CheckpointError(
            "its background is of no kind that this version knows; use a run of this version"
        ) from error
    return background


def background_image(background: nn.Module, width: int = WIDTH) -> np.ndarray:
    """(width / 2, width, 3) uint8 display sRGB, the space in which a background is learned; row 0 looks up."""
    directions = equirectangular_directions(width)
    with torch.no_grad():
        colors = background(directions.reshape(-1, 3)).reshape(directions.shape)
    image: np.ndarray = (colors.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()
    return image


def background_png(place: Path) -> bytes:
    """The background of the run in `place`, a folder or its field file, as a PNG. Raises CheckpointError."""
    try:
        background = background_of(read_initial_field(place).tensors)
    except CheckpointError as error:
        raise CheckpointError(f"--world {place} cannot be used: {error}") from error
    stream = io.BytesIO()
    Image.fromarray(background_image(background)).save(stream, format="PNG")
    return stream.getvalue()
