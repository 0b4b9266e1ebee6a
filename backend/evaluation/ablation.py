# SPDX-License-Identifier: GPL-3.0-or-later
"""The ablation ladder of the paper's figure 6: a preset with its viewpoints, prompts and light held back, and given back one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..config.parsing import validate
from ..config.schema import Config
from ..errors import ConfigError


@dataclass(frozen=True)
class Stage:
    """One step of the ladder: the figure's name of it, a folder's name, and what it gives back to the preset."""

    name: str
    folder: str
    summary: str


# Section 4: "a simplified DreamFusion ablation and progressively adds in optimization choices".
STAGES: tuple[Stage, ...] = (
    Stage("base", "1-base", "one elevation, distance and focal length; one prompt; albedo only"),
    Stage("+ViewAug", "2-view-aug", "a large range of viewpoints"),
    Stage("+ViewDep", "3-view-dep", "view-dependent prompts"),
    Stage("+Lighting", "4-lighting", "illuminated renders as well as albedo"),
    Stage("+Textureless", "5-textureless", "textureless shaded renders: the preset itself"),
)
STAGE_NAMES = tuple(stage.name for stage in STAGES)


@dataclass(frozen=True)
class Midpoint:
    """The middle of a range of the preset's: of these two settings, both of which it becomes."""

    low: str
    high: str


@dataclass(frozen=True)
class FixedSetting:
    """A setting that every stage below `until` holds at `value`, and why at that."""

    setting: str
    until: str
    value: Any
    reason: str


BASE_ELEVATION = 30.0

# The paper prints no numbers for its base. It does say (A.3) that the CLIP methods it compares with see at most 30 degrees of
# elevation, that all are judged there, and (figure 6's caption) that the base makes "a multi-faced dog", so it sees all sides.
FIXED_SETTINGS: tuple[FixedSetting, ...] = (
    FixedSetting(
        "camera.elevation_min",
        "+ViewAug",
        BASE_ELEVATION,
        "A.3: the elevation that is judged, and Dream Fields' only one",
    ),
    FixedSetting("camera.elevation_max", "+ViewAug", BASE_ELEVATION, "the same"),
    FixedSetting(
        "camera.distance_min",
        "+ViewAug",
        Midpoint("camera.distance_min", "camera.distance_max"),
        "3.2: a range of distances is part of the wide views",
    ),
    FixedSetting("camera.distance_max", "+ViewAug", Midpoint("camera.distance_min", "camera.distance_max"), "the same"),
    FixedSetting(
        "camera.focal_min",
        "+ViewAug",
        Midpoint("camera.focal_min", "camera.focal_max"),
        "3.2: the focal length is 'additionally' sampled",
    ),
    FixedSetting("camera.focal_max", "+ViewAug", Midpoint("camera.focal_min", "camera.focal_max"), "the same"),
    FixedSetting(
        "camera.fill_min",
        "+ViewAug",
        Midpoint("camera.fill_min", "camera.fill_max"),
        "the focal length of presets that frame by it",
    ),
    FixedSetting("camera.fill_max", "+ViewAug", Midpoint("camera.fill_min", "camera.fill_max"), "the same"),
    FixedSetting("camera.look_at_std", "+ViewAug", 0.0, "A.2: 'this noise acts as an additional augmentation'"),
    FixedSetting("camera.up_std", "+ViewAug", 0.0, "the same"),
    FixedSetting("camera.position_offset", "+ViewAug", 0.0, "A.2: 'perturbed by a small uniform offset'; the same"),
    FixedSetting(
        "guidance.view_dependent", "+ViewDep", False, "figure 6: 'the base method (i) without view-dependent prompts'"
    ),
    FixedSetting(
        "guidance.opposite_weight",
        "+ViewDep",
        0.0,
        "ours: without view words the opposite view has no prompt to go away from",
    ),
    FixedSetting("shading.shaded_probability", "+Lighting", 0.0, "section 4: 'unlit albedo color renders' alone"),
    FixedSetting("shading.textureless_probability", "+Textureless", 0.0, "section 4: textureless renders come last"),
)


def stage_config(config: Config, name: str) -> Config:
    """The preset `config` as the stage of that name runs it; the topmost is `config` itself.

    Raises ConfigError for an unknown stage, and settings with which two stages would be the same or the base no part of the
    preset.
    """
    if name not in STAGE_NAMES:
        raise ConfigError(f"unknown stage {name!r}; allowed are {', '.join(STAGE_NAMES)}; choose one")
    camera = config.camera
    if not camera.elevation_min <= BASE_ELEVATION <= camera.elevation_max:
        raise ConfigError(
            f"camera elevations {camera.elevation_min:g} to {camera.elevation_max:g}; allowed for the ladder are ranges with "
            f"{BASE_ELEVATION:g} degrees in them, where its base looks from; change camera.elevation_min or camera.elevation_max"
        )
    ladder = [_with_fixed_settings(config, level) for level in range(len(STAGES))]
    for below, above, stage in zip(ladder, ladder[1:], STAGES[1:]):
        if below == above:
            names = ", ".join(held.setting for held in FIXED_SETTINGS if held.until == stage.name)
            raise ConfigError(
                f"the stage {stage.name} would change nothing; its settings are {names}; give one of them another value"
            )
    return ladder[STAGE_NAMES.index(name)]


def fixed_values(config: Config) -> dict[str, dict[str, Any]]:
    """By stage the settings that it still holds, and at what."""
    ladder = {stage.name: stage_config(config, stage.name) for stage in STAGES}
    held_by = {name: [held.setting for held in FIXED_SETTINGS if STAGE_NAMES.index(held.until) > STAGE_NAMES.index(name)] for name in STAGE_NAMES}
    return {name: {setting: _value(ladder[name], setting) for setting in held_by[name]} for name in STAGE_NAMES}


def _with_fixed_settings(config: Config, level: int) -> Config:
    changed = config
    for held in FIXED_SETTINGS:
        if STAGE_NAMES.index(held.until) > level:
            section, key = held.setting.split(".")
            value = held.value
            if isinstance(value, Midpoint):
                value = 0.5 * (_value(config, value.low) + _value(config, value.high))
            changed = replace(changed, **{section: replace(getattr(changed, section), **{key: value})})
    return validate(changed)


def _value(config: Config, setting: str) -> Any:
    section, key = setting.split(".")
    return getattr(getattr(config, section), key)
