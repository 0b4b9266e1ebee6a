# SPDX-License-Identifier: GPL-3.0-or-later
"""The presets: `draft` takes minutes on a CPU, `standard` more steps, `paper` has the numbers of DreamFusion's paper.

docs/method.md lists where `paper` differs from the paper: the model above all, which is not published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError
from .recipes.clip import CLIP_MESH, CLIP_MESH_PAPER, DREAM_FIELDS, DREAM_FIELDS_PAPER
from .recipes.starter import DRAFT, REFINE, STANDARD
from .schema import Config


@dataclass(frozen=True)
class Preset:
    """A named configuration with one line about it."""

    name: str
    summary: str
    config: Config


PAPER = Config()  # the defaults of the schema are the paper's numbers

REFINE_PRESET = "refine"  # the only one for a mesh

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("draft", "a prop in minutes on a CPU: voxels, four views a step", DRAFT),
        Preset("standard", "twice the steps and noises of the same settings, and a finer mesh", STANDARD),
        Preset("paper", "DreamFusion as published: mip-NeRF field, Shampoo, 15,000 steps of 4 views", PAPER),
        Preset(
            "dream-fields",
            "CLIP guides instead of diffusion: Dream Fields' loss on draft's field, minutes on a CPU",
            DREAM_FIELDS,
        ),
        Preset(
            "dream-fields-paper",
            "Dream Fields' published numbers on the paper's field: 10,000 steps of 252 pixels",
            DREAM_FIELDS_PAPER,
        ),
        Preset("clip-mesh", "CLIP guides a sphere's vertices and colors: minutes on a CPU", CLIP_MESH),
        Preset(
            "clip-mesh-paper",
            "CLIP-Mesh's published numbers, as far as they fit a mesh with vertex colors: 5,000 steps of 25 views",
            CLIP_MESH_PAPER,
        ),
    )
}


def get_preset(name: str) -> Preset:
    """The preset of that name. Raises ConfigError listing the known ones."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; allowed are {', '.join(PRESETS)}; choose one with --preset")
    return PRESETS[name]


def preset_config(name: str, has_mesh: bool = False) -> Config:
    """The configuration of a preset. Raises ConfigError for an unknown one, and for one that cannot refine a mesh."""
    if not has_mesh:
        return get_preset(name).config
    if name != REFINE_PRESET:
        raise ConfigError(
            f"the preset {name!r} makes props without a mesh; allowed for a mesh is {REFINE_PRESET!r}; choose that, or "
            "leave the mesh out"
        )
    return REFINE
