# SPDX-License-Identifier: GPL-3.0-or-later
"""Ablation of the paper's figure 6: a preset with fixed views, prompts and light, which are released stage by stage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dreamwright.shared.numbers import number_text

from ..config.parsing import validate
from ..config.schema import Config
from ..errors import ConfigError


@dataclass(frozen=True)
class Stage:
    """One stage of the ablation: its name in the figure, its folder, and what it adds."""

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
    """The mean of two settings, the ends of a range of the preset."""

    low: str
    high: str


@dataclass(frozen=True)
class FixedSetting:
    """A setting that has `value` in all stages before `until`, and the reason for that value."""

    setting: str
    until: str
    value: Any
    reason: str


BASE_ELEVATION = 30.0  # degrees

_DISTANCE = Midpoint("camera.distance_min", "camera.distance_max")
_FOCAL = Midpoint("camera.focal_min", "camera.focal_max")
_FILL = Midpoint("camera.fill_min", "camera.fill_max")
_ELEVATION = "A.3: the elevation of Dream Fields' cameras, and the highest of the CLIP methods"
_PERTURBED = "A.2: 'this noise acts as an additional augmentation'"
_FRAMED = "focal length of presets that frame by the prop's share of the image"

# The paper prints no numbers for its base. Figure 6's caption names its result "a multi-faced dog": it sees all sides.
FIXED_SETTINGS: tuple[FixedSetting, ...] = (
    FixedSetting("camera.elevation_min", "+ViewAug", BASE_ELEVATION, _ELEVATION),
    FixedSetting("camera.elevation_max", "+ViewAug", BASE_ELEVATION, _ELEVATION),
    FixedSetting("camera.distance_min", "+ViewAug", _DISTANCE, "3.2: a range of distances is part of the wide views"),
    FixedSetting("camera.distance_max", "+ViewAug", _DISTANCE, "3.2: a range of distances is part of the wide views"),
    FixedSetting("camera.focal_min", "+ViewAug", _FOCAL, "3.2: the focal length is 'additionally' sampled"),
    FixedSetting("camera.focal_max", "+ViewAug", _FOCAL, "3.2: the focal length is 'additionally' sampled"),
    FixedSetting("camera.fill_min", "+ViewAug", _FILL, _FRAMED),
    FixedSetting("camera.fill_max", "+ViewAug", _FILL, _FRAMED),
    FixedSetting("camera.look_at_std", "+ViewAug", 0.0, _PERTURBED),
    FixedSetting("camera.up_std", "+ViewAug", 0.0, _PERTURBED),
    FixedSetting("camera.position_offset", "+ViewAug", 0.0, "A.2: 'perturbed by a small uniform offset'"),
    FixedSetting(
        "guidance.view_dependent", "+ViewDep", False, "figure 6: 'the base method (i) without view-dependent prompts'"
    ),
    FixedSetting(
        "guidance.opposite_weight",
        "+ViewDep",
        0.0,
        "without view words there is no prompt of the opposite view; not part of the paper",
    ),
    FixedSetting("shading.shaded_probability", "+Lighting", 0.0, "section 4: 'unlit albedo color renders' alone"),
    FixedSetting(
        "shading.textureless_probability", "+Textureless", 0.0, "section 4: textureless renders are added last"
    ),
)


def stage_config(config: Config, name: str) -> Config:
    """The preset `config` as the stage of that name runs it; the last stage is `config` itself.

    Raises ConfigError for an unknown stage, for a preset in which a stage changes nothing, and for one whose cameras
    do not include the base elevation.
    """
    if name not in STAGE_NAMES:
        raise ConfigError(f"unknown stage {name!r}; allowed are {', '.join(STAGE_NAMES)}; choose one")
    camera = config.camera
    if not camera.elevation_min <= BASE_ELEVATION <= camera.elevation_max:
        raise ConfigError(
            f"camera elevations {number_text(camera.elevation_min)} to {number_text(camera.elevation_max)}; allowed "
            f"for the ablation are ranges that include {number_text(BASE_ELEVATION)} degrees, its base; "
            "change camera.elevation_min or camera.elevation_max"
        )
    stages = [_with_fixed_settings(config, level) for level in range(len(STAGES))]
    for before, after, stage in zip(stages, stages[1:], STAGES[1:], strict=False):
        if before == after:
            names = ", ".join(fixed.setting for fixed in FIXED_SETTINGS if fixed.until == stage.name)
            raise ConfigError(
                f"the stage {stage.name} would change nothing; its settings are {names}; give one of them another value"
            )
    return stages[STAGE_NAMES.index(name)]


def fixed_values(config: Config) -> dict[str, dict[str, Any]]:
    """Value of each setting that a stage still fixes, by stage and setting."""
    stages = {stage.name: stage_config(config, stage.name) for stage in STAGES}
    fixed_by = {
        name: [fixed.setting for fixed in FIXED_SETTINGS if STAGE_NAMES.index(fixed.until) > STAGE_NAMES.index(name)]
        for name in STAGE_NAMES
    }
    return {name: {setting: _value(stages[name], setting) for setting in fixed_by[name]} for name in STAGE_NAMES}


def _with_fixed_settings(config: Config, level: int) -> Config:
    changed = config
    for fixed in FIXED_SETTINGS:
        if STAGE_NAMES.index(fixed.until) > level:
            section, key = fixed.setting.split(".")
            value = fixed.value
            if isinstance(value, Midpoint):
                value = 0.5 * (_value(config, value.low) + _value(config, value.high))
            changed = replace(changed, **{section: replace(getattr(changed, section), **{key: value})})
    return validate(changed)


def _value(config: Config, setting: str) -> Any:
    section, key = setting.split(".")
    return getattr(getattr(config, section), key)
