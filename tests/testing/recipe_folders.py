# SPDX-License-Identifier: GPL-3.0-or-later
"""A tiny model of every family that has recipes of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from dreamwright.backend.config.recipes.recipe import Family
from tests.testing.tiny_families import write_family
from tests.testing.tiny_model import save_tiny_model
from tests.testing.tiny_mvdream import write_mvdream
from tests.testing.tiny_pipeline import write_pipeline

WRITERS: Mapping[Family, Callable[[Path], Path]] = {
    "starter": save_tiny_model,
    "pixel": lambda folder: write_pipeline(folder, domain=False),
    "latent": lambda folder: write_family("sd15", folder),
    "sdxl": lambda folder: write_family("sdxl", folder),
    "flow": lambda folder: write_family("sd3", folder),
    "multi-view": write_mvdream,
}


def write_all(work: Path) -> dict[Family, Path]:
    """The folder of each family's model, below `work`."""
    return {family: write(work / family) for family, write in WRITERS.items()}
