# SPDX-License-Identifier: GPL-3.0-or-later
"""A run's learned background as an equirectangular image: its directions, and its colors from a run's own file."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dreamwright.backend.config.schema import BackgroundConfig
from dreamwright.backend.errors import CheckpointError
from dreamwright.backend.fields import build_background
from dreamwright.backend.relighting.learned_background import (
    background_image,
    background_of,
    background_png,
    equirectangular_directions,
)
from dreamwright.backend.scenes.initial_field import save_field
from dreamwright.backend.scenes.interfaces import RunState


def test_directions_are_unit_and_where_blender_looks_for_them() -> None:
    directions = equirectangular_directions(64)
    assert directions.shape == (32, 64, 3)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(32, 64))
    # A pixel of 64 spans 5.6 degrees, so that the four around a direction are within 4 degrees of it: cosine 0.997.
    for row, column, direction in ((16, 32, (1, 0, 0)), (16, 16, (0, 1, 0)), (16, 48, (0, -1, 0)), (16, 0, (-1, 0, 0))):
        assert float(directions[row, column] @ torch.tensor(direction, dtype=torch.float32)) > 0.997
    assert float(directions[0, :, 2].min()) > 0.997 and float(directions[-1, :, 2].max()) < -0.997


@pytest.mark.parametrize(
    "config", [BackgroundConfig(kind="mlp", encoding_levels=2, hidden_width=16), BackgroundConfig(kind="constant")]
)
def test_image_has_the_colors_of_the_network(config: BackgroundConfig) -> None:
    learned = build_background(config, torch.Generator().manual_seed(3))
    found = background_of({f"background.{name}": value for name, value in learned.state_dict().items()})
    image = background_image(found, 32)
    colors = learned(equirectangular_directions(32).reshape(-1, 3)).detach().reshape(16, 32, 3)
    np.testing.assert_allclose(image / 255, colors.numpy(), atol=0.5 / 255 + 1e-6)  # rounded to 8 bits


def test_place_without_a_field_and_tensors_without_a_background_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="--world .* cannot be used: no field in"):
        background_png(tmp_path)
    with pytest.raises(CheckpointError, match="of no kind that this version knows"):
        background_of({"background.other": torch.zeros(3)})


def test_background_of_a_saved_run_is_written(tmp_path: Path) -> None:
    learned = build_background(BackgroundConfig(kind="mlp"), torch.Generator().manual_seed(1))
    tensors = {f"background.{name}": value for name, value in learned.state_dict().items()}
    job = SimpleNamespace(prompt="a red mushroom", fingerprint=lambda: "0")
    save_field(tmp_path, job, RunState(3, 0, 0, tensors))
    with Image.open(io.BytesIO(background_png(tmp_path))) as image:
        np.testing.assert_array_equal(np.asarray(image), background_image(learned))
