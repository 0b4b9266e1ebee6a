# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of `dreamwright finish`, and its presets. They belong to no run, so `Config` does not hold them."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from dreamwright.shared import limits

from ..errors import ConfigError
from .parsing import parse_value
from .setting import check_section, section_settings, setting

SECTION = "finish"
Step = Literal["pivot", "remesh", "uv", "bake", "lod", "collision"]
STEPS: tuple[Step, ...] = ("pivot", "remesh", "uv", "bake", "lod", "collision")  # in the order in which they run


@dataclass(frozen=True)
class FinishConfig:
    """Lengths are in meters, angles in degrees."""

    triangles: int = setting(
        5000, (limits.TRIANGLES_SMALLEST, limits.TRIANGLES_LARGEST), help="Triangle budget of the finest level (LOD0)."
    )
    layout: Literal["decimated", "even"] = setting(
        "decimated",
        help=(
            "decimated: quadric decimation, few triangles where the surface is flat. even: triangles of equal size, "
            "which deform better; sharp edges stay."
        ),
    )
    crease: float = setting(
        40.0, (1, 180), unit="degrees", help="Angle between two faces above which their edge counts as sharp."
    )
    deviation: float = setting(
        0.03,
        (1e-4, 1),
        unit="share of the diagonal",
        help="Largest distance between the finest level and the given mesh. A remesh beyond it counts as collapsed.",
    )
    texture: int = setting(
        1024,
        (limits.TEXTURE_SMALLEST, limits.TEXTURE_LARGEST),
        unit="texels a side",
        help="Size of the albedo and normal textures of LOD0; each coarser level has half of it.",
    )
    normal_map: bool = setting(True, help="Bake a tangent-space normal map beside the albedo.")
    reach: float = setting(
        0.02,
        (1e-4, 1),
        unit="share of the diagonal",
        help="How far along its normal a texel looks for the given mesh before it takes the nearest point.",
    )
    levels: int = setting(3, (0, 7), help="Coarser levels of detail after LOD0.")
    level_ratio: float = setting(0.5, (0.05, 0.95), help="Triangles of a level per triangle of the level before it.")
    pixel_error: float = setting(
        1.0,
        (0.05, 100),
        unit="pixels",
        help="Distance on the screen between a level and LOD0 at which the level may replace a finer one.",
    )
    screen_height: int = setting(1080, (64, 16384), unit="pixels", help="Height of the screen that this refers to.")
    hulls: int = setting(8, (1, 64), help="Largest number of convex collision hulls.")
    hull_vertices: int = setting(64, (8, 255), help="Largest number of vertices of a hull.")
    concavity: float = setting(0.1, (0.01, 1), help="Concavity, as CoACD defines it, above which a part is cut in two.")
    pivot: Literal["base", "center", "keep"] = setting(
        "base", help="Where the origin goes: middle of the base, middle of the bounding box, or where it is."
    )
    height_m: float = setting(
        0.0,
        (limits.HEIGHT_M_SMALLEST, limits.HEIGHT_M_LARGEST),
        zero="the size that the mesh has",
        unit="meters",
        help="Height along Z.",
    )
    roughness: float = setting(0.8, (0, 1), help="Roughness of the material, the same everywhere.")
    metallic: float = setting(0.0, (0, 1), help="Metalness of the material, the same everywhere.")


@dataclass(frozen=True)
class FinishPreset:
    """A named set of settings with one line that says what it is for."""

    name: str
    summary: str
    config: FinishConfig


PRESETS: Mapping[str, FinishPreset] = {
    preset.name: preset
    for preset in (
        FinishPreset("game", "a prop of a game: 5,000 triangles, 1024 texels, three more levels", FinishConfig()),
        FinishPreset(
            "mobile",
            "a small game: 1,500 triangles, 512 texels, two more levels, three hulls",
            FinishConfig(triangles=1500, texture=512, levels=2, hulls=3, hull_vertices=32),
        ),
        FinishPreset(
            "close-up",
            "a prop seen from near: 20,000 even triangles, 2048 texels",
            FinishConfig(triangles=20000, layout="even", texture=2048, levels=4),
        ),
    )
}


def finish_config(preset: str, settings: Iterable[str] = ()) -> FinishConfig:
    """The settings of a preset with those written as finish.name=value over them.

    Raises ConfigError for an unknown preset or name, a wrong type, and a number outside of its bounds.
    """
    if preset not in PRESETS:
        raise ConfigError(f"the preset is {preset!r}; allowed are {', '.join(PRESETS)}; choose one")
    known = {found.name: found for found in section_settings(FinishConfig, SECTION)}
    changed = {}
    for text in settings:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise ConfigError(f"setting {text!r} has no '='; allowed is finish.name=value, such as finish.levels=2")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            raise ConfigError(
                f"unknown setting {name!r}; "
                + (f"did you mean {', '.join(close)}?" if close else f"allowed are {', '.join(known)}")
            )
        changed[known[name].key] = parse_value(known[name], value)
    config = dataclasses.replace(PRESETS[preset].config, **changed)
    check_section(config, SECTION)
    return config
