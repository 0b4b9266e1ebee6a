# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings that a server offers to clients: controls for the panel, and the range of every number."""

from __future__ import annotations

from collections.abc import Mapping

from dreamwright.shared.capabilities import RecipeInfo, SettingInfo, SettingRange

from ..config.presets import PRESETS, RECIPES, REFINE_PRESET
from ..config.recipes.recipe import Recipe
from ..config.recipes.starter import REFINE
from ..config.schema import Config
from ..config.setting import Setting, setting_fields
from ..config.usage import run_kind, setting_value


def preset_configs() -> dict[str, Config]:
    """The configuration of every preset that a client can name, the refinement of a mesh included."""
    return {**{name: preset.config for name, preset in PRESETS.items()}, REFINE_PRESET: REFINE}


def setting_infos(
    schema: type[Config] = Config, presets: Mapping[str, Config] | None = None
) -> tuple[SettingInfo, ...]:
    """The settings that are declared with panel=True, each with its defaults by preset.

    A preset whose kind of run does not read the setting has no default for it.
    """
    presets = preset_configs() if presets is None else presets
    return tuple(_info(found, presets) for found in setting_fields(schema).values() if found.panel)


def recipe_infos() -> tuple[RecipeInfo, ...]:
    """Every recipe of every family, with its defaults of the settings that are declared with panel=True."""
    return tuple(_recipe_info(recipe) for family in RECIPES.values() for recipe in family.values())


def _recipe_info(recipe: Recipe) -> RecipeInfo:
    config = recipe.config
    kind = run_kind(config, "mesh" if recipe.name == REFINE_PRESET else None)
    defaults = {
        found.name: setting_value(config, found.name)
        for found in setting_fields(type(config)).values()
        if found.panel and found.applies_to(*kind)
    }
    return RecipeInfo(recipe.family, recipe.name, recipe.summary, recipe.notice, config.total_steps, defaults)


def setting_ranges(schema: type[Config] = Config) -> tuple[SettingRange, ...]:
    """Smallest and largest value of every number, whether the panel draws it or not."""
    return tuple(
        SettingRange(found.name, float(found.bounds[0]), float(found.bounds[1]))
        for found in setting_fields(schema).values()
        if found.bounds is not None
    )


def _info(found: Setting, presets: Mapping[str, Config]) -> SettingInfo:
    low, high = found.bounds or (0, 1)
    defaults = {
        name: setting_value(config, found.name)
        for name, config in presets.items()
        if found.applies_to(*run_kind(config, "mesh" if name == REFINE_PRESET else None))
    }
    return SettingInfo(
        found.name, found.label, found.help, found.kind, float(low), float(high), found.choices, defaults
    )
