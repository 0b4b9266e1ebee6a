# SPDX-License-Identifier: GPL-3.0-or-later
"""The ablation ladder of the paper's figure 6: a preset with its viewpoints, prompts and light held back, and given back one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..config.parsing import validate
from ..config.schema import Config
from ..errors import ConfigError


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: the figure's name of it, a folder's name, and what it gives back to the preset."""

    name: str
    folder: str
    summary: str


# Section 4: "a simplified DreamFusion ablation and progressively adds in optimization choices".
RUNGS: tuple[Rung, ...] = (
    Rung("base", "1-base", "one elevation, distance and focal length; one prompt; albedo only"),
    Rung("+ViewAug", "2-view-aug", "a large range of viewpoints"),
    Rung("+ViewDep", "3-view-dep", "view-dependent prompts"),
    Rung("+Lighting", "4-lighting", "illuminated renders as well as albedo"),
    Rung("+Textureless", "5-textureless", "textureless shaded renders: the preset itself"),
)
NAMES = tuple(rung.name for rung in RUNGS)


@dataclass(frozen=True)
class Middle:
    """The middle of a range of the preset's: of these two settings, both of which it becomes."""

    low: str
    high: str


@dataclass(frozen=True)
class Held:
    """A setting that every rung below `until` holds at `value`, and why at that."""

    setting: str
    until: str
    value: Any
    reason: str


BASE_ELEVATION = 30.0

# The paper prints no numbers for its base. It does say (A.3) that the CLIP methods it compares with see at most 30 degrees of
# elevation, that all are judged there, and (figure 6's caption) that the base makes "a multi-faced dog", so it sees all sides.
HELD: tuple[Held, ...] = (
    Held(
        "camera.elevation_min",
        "+ViewAug",
        BASE_ELEVATION,
        "A.3: the elevation that is judged, and Dream Fields' only one",
    ),
    Held("camera.elevation_max", "+ViewAug", BASE_ELEVATION, "the same"),
    Held(
        "camera.distance_min",
        "+ViewAug",
        Middle("camera.distance_min", "camera.distance_max"),
        "3.2: a range of distances is part of the wide views",
    ),
    Held("camera.distance_max", "+ViewAug", Middle("camera.distance_min", "camera.distance_max"), "the same"),
    Held(
        "camera.focal_min",
        "+ViewAug",
        Middle("camera.focal_min", "camera.focal_max"),
        "3.2: the focal length is 'additionally' sampled",
    ),
    Held("camera.focal_max", "+ViewAug", Middle("camera.focal_min", "camera.focal_max"), "the same"),
    Held(
        "camera.fill_min",
        "+ViewAug",
        Middle("camera.fill_min", "camera.fill_max"),
        "the focal length of presets that frame by it",
    ),
    Held("camera.fill_max", "+ViewAug", Middle("camera.fill_min", "camera.fill_max"), "the same"),
    Held("camera.look_at_std", "+ViewAug", 0.0, "A.2: 'this noise acts as an additional augmentation'"),
    Held("camera.up_std", "+ViewAug", 0.0, "the same"),
    Held("camera.position_offset", "+ViewAug", 0.0, "A.2: 'perturbed by a small uniform offset'; the same"),
    Held(
        "guidance.view_dependent", "+ViewDep", False, "figure 6: 'the base method (i) without view-dependent prompts'"
    ),
    Held(
        "guidance.opposite_weight",
        "+ViewDep",
        0.0,
        "ours: without view words the opposite view has no prompt to go away from",
    ),
    Held("shading.shaded_probability", "+Lighting", 0.0, "section 4: 'unlit albedo color renders' alone"),
    Held("shading.textureless_probability", "+Textureless", 0.0, "section 4: textureless renders come last"),
)


def rung_config(config: Config, name: str) -> Config:
    """The preset `config` as the rung of that name runs it; the topmost is `config` itself.

    Raises ConfigError for an unknown rung, and settings with which two rungs would be the same or the base no part of the
    preset.
    """
    if name not in NAMES:
        raise ConfigError(f"unknown rung {name!r}; allowed are {', '.join(NAMES)}; choose one")
    camera = config.camera
    if not camera.elevation_min <= BASE_ELEVATION <= camera.elevation_max:
        raise ConfigError(
            f"camera elevations {camera.elevation_min:g} to {camera.elevation_max:g}; allowed for the ladder are ranges with "
            f"{BASE_ELEVATION:g} degrees in them, where its base looks from; change camera.elevation_min or camera.elevation_max"
        )
    ladder = [_held_back(config, level) for level in range(len(RUNGS))]
    for below, above, rung in zip(ladder, ladder[1:], RUNGS[1:]):
        if below == above:
            names = ", ".join(held.setting for held in HELD if held.until == rung.name)
            raise ConfigError(
                f"the rung {rung.name} would change nothing; its settings are {names}; give one of them another value"
            )
    return ladder[NAMES.index(name)]


def held_values(config: Config) -> dict[str, dict[str, Any]]:
    """By rung the settings that it still holds, and at what."""
    ladder = {rung.name: rung_config(config, rung.name) for rung in RUNGS}
    held_by = {name: [held.setting for held in HELD if NAMES.index(held.until) > NAMES.index(name)] for name in NAMES}
    return {name: {setting: _value(ladder[name], setting) for setting in held_by[name]} for name in NAMES}


def _held_back(config: Config, level: int) -> Config:
    changed = config
    for held in HELD:
        if NAMES.index(held.until) > level:
            section, key = held.setting.split(".")
            value = held.value
            if isinstance(value, Middle):
                value = 0.5 * (_value(config, value.low) + _value(config, value.high))
            changed = replace(changed, **{section: replace(getattr(changed, section), **{key: value})})
    return validate(changed)


def _value(config: Config, setting: str) -> Any:
    section, key = setting.split(".")
    return getattr(getattr(config, section), key)
