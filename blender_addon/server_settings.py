# SPDX-License-Identifier: GPL-3.0-or-later
"""Controls of the settings that the server describes: a PropertyGroup made at run time, with ranges and tooltips.

Defaults are those of a choice of model and preset, whose recipe depends on the model's family.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, PointerProperty

from . import labels
from .provenance import REFINE_PRESET
from .shared.capabilities import Capabilities, RecipeInfo, SettingInfo
from .wording import say

TEXTURE, LORAS = "mesh.texture", "model.loras"
REFINE_PREFIX = "refine."  # of settings that only mesh refinement has; its dialog shows them
DEDICATED = ("mesh.height_m", "mesh.triangles", TEXTURE, LORAS)  # settings with a control of their own in the panel
_HOLDER = "dreamwright_settings"
_MAX_INT = 2**31 - 1  # of Blender's IntProperty

_group: type | None = None
_group_settings: tuple[SettingInfo, ...] = ()
_enum_items: list[list[tuple[str, str, str]]] = []  # kept alive: Blender holds only pointers to the strings


def property_name(setting: SettingInfo) -> str:
    """The Blender property of a setting; its name must not contain a dot."""
    return re.sub(r"\W", "_", setting.name.replace(".", "__"))


def find_setting(capabilities: Capabilities | None, name: str) -> SettingInfo | None:
    """A setting of the server by name; None when it has none."""
    settings = capabilities.settings if capabilities else ()
    return next((setting for setting in settings if setting.name == name), None)


def visible_settings(capabilities: Capabilities | None) -> tuple[SettingInfo, ...]:
    """The settings that the advanced panel shows."""
    return tuple(
        setting
        for setting in (capabilities.settings if capabilities else ())
        if setting.name not in DEDICATED
        and not setting.name.startswith(REFINE_PREFIX)
        and (setting.kind != "choice" or setting.choices)
    )


def texture_fault(capabilities: Capabilities | None) -> str:
    """Why the server cannot make image textures, as a sentence; "" when it can, or is unknown yet."""
    if capabilities is None or any(known.name == TEXTURE for known in capabilities.setting_bounds):
        return ""
    return say("This server makes no image textures; choose Vertex Colors, or update the server")


@dataclass(frozen=True)
class Choice:
    """A model and a preset by name; "" for none."""

    model: str = ""
    preset: str = ""


def choice_of(mine: Any) -> Choice:
    """The model and the preset that the panel's properties name."""
    return Choice(mine.model_name, mine.preset_name)


def recipe_of(capabilities: Capabilities | None, choice: Choice) -> RecipeInfo | None:
    """What the preset means for the model; None for a model that is not on the server or has no such preset."""
    model = labels.model_info(capabilities, choice.model)
    if capabilities is None or model is None or not model.family:
        return None
    fitting = (recipe for recipe in capabilities.recipes if recipe.preset == choice.preset)
    return next((recipe for recipe in fitting if recipe.family == model.family), None)


def offered_presets(capabilities: Capabilities | None, model: str) -> list[tuple[str, str]]:
    """Names and summaries of the presets that the model has, the server's default first."""
    presets = capabilities.presets if capabilities else ()
    known = labels.model_info(capabilities, model)
    if capabilities is None or known is None or not known.family:
        return [(preset.name, preset.summary) for preset in presets]
    order = [preset.name for preset in presets]
    own = [recipe for recipe in capabilities.recipes if recipe.family == known.family]
    own = [recipe for recipe in own if recipe.preset != REFINE_PRESET]
    own.sort(key=lambda recipe: order.index(recipe.preset) if recipe.preset in order else len(order))
    return [(recipe.preset, recipe.summary) for recipe in own]


def default_of(capabilities: Capabilities | None, setting: SettingInfo, choice: Choice) -> Any:
    """A setting's value for a model and a preset; None when the server does not say."""
    recipe = recipe_of(capabilities, choice)
    if recipe is not None and setting.name in recipe.defaults:
        return recipe.defaults[setting.name]
    return setting.defaults.get(choice.preset, next(iter(setting.defaults.values()), None))


def _make_property(setting: SettingInfo) -> Any:
    default = default_of(None, setting, Choice())
    texts = {"name": setting.label, "description": setting.tip.rstrip(".")}
    if setting.kind == "switch":
        return BoolProperty(**texts, default=bool(default))
    if setting.kind == "choice":
        items = [(choice, choice, texts["description"]) for choice in setting.choices]
        _enum_items.append(items)
        if default in setting.choices:
            return EnumProperty(**texts, items=items, default=default)
        return EnumProperty(**texts, items=items)
    value = default if isinstance(default, (int, float)) else setting.low
    if setting.kind == "integer":
        low, high = (int(max(-_MAX_INT, min(_MAX_INT, bound))) for bound in (setting.low, setting.high))
        return IntProperty(**texts, default=int(max(low, min(high, value))), min=low, max=max(low, high))
    value = float(max(setting.low, min(setting.high, value)))
    return FloatProperty(**texts, default=value, min=setting.low, max=max(setting.low, setting.high), precision=3)


def rebuild(capabilities: Capabilities | None, choice: Choice) -> bool:
    """Make the controls for these capabilities, with a choice's defaults; False when they exist already."""
    global _group, _group_settings
    settings = visible_settings(capabilities)
    if _group is not None and settings == _group_settings:
        return False
    clear()
    fields = {property_name(setting): _make_property(setting) for setting in settings}
    _group = type("DreamwrightServerSettings", (bpy.types.PropertyGroup,), {"__annotations__": fields})
    bpy.utils.register_class(_group)
    setattr(bpy.types.WindowManager, _HOLDER, PointerProperty(type=_group))
    _group_settings = settings
    apply_defaults(capabilities, Choice(), choice)
    return True


def holder(context: Any) -> Any:
    """The PropertyGroup of the controls; None before a server has sent its capabilities."""
    return getattr(context.window_manager, _HOLDER, None)


def apply_defaults(capabilities: Capabilities | None, old: Choice, new: Choice) -> None:
    """Change the values that have the default of the choice `old` to the default of `new`."""
    values = holder(bpy.context)
    for setting in visible_settings(capabilities) if values is not None else ():
        name, wanted = property_name(setting), default_of(capabilities, setting, new)
        before = default_of(capabilities, setting, old)
        is_default = not values.is_property_set(name) or _equal(getattr(values, name), before)
        if is_default and wanted is not None:
            _set(values, setting, wanted)


def changed_settings(capabilities: Capabilities | None, choice: Choice) -> dict[str, Any]:
    """The settings that differ from the defaults of the choice, by name."""
    values = holder(bpy.context)
    found = {}
    for setting in visible_settings(capabilities) if values is not None else ():
        value = getattr(values, property_name(setting))
        if not _equal(value, default_of(capabilities, setting, choice)):
            found[setting.name] = value
    return found


def collect(capabilities: Capabilities | None, mine: Any) -> dict[str, Any]:
    """All settings of a request from the panel. Raises ValueError when the server cannot do what is chosen."""
    settings = changed_settings(capabilities, choice_of(mine))
    settings["mesh.height_m"] = round(mine.height_m, 6)
    settings["mesh.triangles"] = mine.triangles
    if mine.color_as == "IMAGE":
        if fault := texture_fault(capabilities):
            raise ValueError(fault)
        settings[TEXTURE] = mine.texture_size
    return settings | lora_settings(capabilities, mine)


def lora_settings(capabilities: Capabilities | None, mine: Any) -> dict[str, Any]:
    """The setting of the panel's LoRAs; none for a model that takes none."""
    given = mine.loras.strip()
    return {LORAS: given} if given and labels.takes_loras(capabilities, mine.model_name) else {}


def apply(capabilities: Capabilities | None, choice: Choice, settings: Mapping[str, Any]) -> list[str]:
    """Set the controls to the defaults of the choice with these changes; the names that this server does not have."""
    values = holder(bpy.context)
    known = {setting.name: setting for setting in visible_settings(capabilities)} if values is not None else {}
    for name, setting in known.items():
        value = settings.get(name, default_of(capabilities, setting, choice))
        if value is not None:
            _set(values, setting, value)
    return [name for name in settings if name not in known and name not in DEDICATED]


def _set(values: Any, setting: SettingInfo, value: Any) -> None:
    convert = {"integer": int, "number": float, "switch": bool, "choice": str}[setting.kind]
    try:
        setattr(values, property_name(setting), convert(value))
    except (TypeError, ValueError):
        values.property_unset(property_name(setting))  # of another kind, or no longer a choice: use the default


def _equal(value: Any, other: Any) -> bool:
    if isinstance(value, float) and isinstance(other, (int, float)):
        return abs(value - other) <= 1e-6 * max(1.0, abs(value))  # properties hold 32 bits
    return bool(value == other)


def clear() -> None:
    """Remove the controls."""
    global _group, _group_settings
    if hasattr(bpy.types.WindowManager, _HOLDER):
        delattr(bpy.types.WindowManager, _HOLDER)
    if _group is not None:
        bpy.utils.unregister_class(_group)
    _group, _group_settings = None, ()
    _enum_items.clear()
