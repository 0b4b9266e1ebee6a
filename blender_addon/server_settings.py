# SPDX-License-Identifier: GPL-3.0-or-later
"""Controls that the server describes: its setting cards become a PropertyGroup with real bounds and tooltips."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, PointerProperty

from .shared.capabilities import Capabilities, SettingInfo

# Settings that have a control of their own in the panel.
TEXTURE = "mesh.texture"
OF_A_MESH = "refine."  # how the settings begin that only a refinement has; its dialog shows them
OWN_CONTROLS = ("mesh.height_m", "mesh.triangles", TEXTURE)
_HOLDER = "dreamwright_settings"
_LARGEST = 2**31 - 1

_made: type | None = None
_made_from: tuple[SettingInfo, ...] = ()
_choices: list[list[tuple[str, str, str]]] = []  # kept alive: Blender holds only pointers into them


def field_of(card: SettingInfo) -> str:
    """The property's name: a dot cannot be in one."""
    return re.sub(r"\W", "_", card.name.replace(".", "__"))


def shown_cards(offered: Capabilities | None) -> tuple[SettingInfo, ...]:
    """Cards that the advanced panel draws."""
    cards = offered.settings if offered else ()
    return tuple(
        card
        for card in cards
        if card.name not in OWN_CONTROLS
        and not card.name.startswith(OF_A_MESH)
        and (card.kind != "choice" or card.choices)
    )


def texture_fault(offered: Capabilities | None) -> str:
    """Why no image can be had of this server, in a sentence; "" when it can, or has not said yet."""
    if offered is None or any(bound.name == TEXTURE for bound in offered.setting_bounds):
        return ""
    return "This server makes no image textures; choose Vertex Colors, or update the server"


def default_of(card: SettingInfo, preset: str) -> Any:
    """A setting's value in a preset; None when the server does not say."""
    return card.defaults.get(preset, next(iter(card.defaults.values()), None))


def _property(card: SettingInfo) -> Any:
    default = default_of(card, "")
    words = {"name": card.label, "description": card.tip.rstrip(".")}
    if card.kind == "switch":
        return BoolProperty(**words, default=bool(default))
    if card.kind == "choice":
        items = [(choice, choice, words["description"]) for choice in card.choices]
        _choices.append(items)
        if default in card.choices:
            return EnumProperty(**words, items=items, default=default)
        return EnumProperty(**words, items=items)
    number = default if isinstance(default, (int, float)) else card.low
    if card.kind == "integer":
        low, high = (int(max(-_LARGEST, min(_LARGEST, bound))) for bound in (card.low, card.high))
        return IntProperty(**words, default=int(max(low, min(high, number))), min=low, max=max(low, high))
    number = float(max(card.low, min(card.high, number)))
    return FloatProperty(**words, default=number, min=card.low, max=max(card.low, card.high), precision=3)


def rebuild(offered: Capabilities | None, preset: str) -> bool:
    """Make the controls for what this server offers, at a preset's defaults; False when they are made already."""
    global _made, _made_from
    cards = shown_cards(offered)
    if _made is not None and cards == _made_from:
        return False
    clear()
    fields = {field_of(card): _property(card) for card in cards}
    _made = type("DreamwrightServerSettings", (bpy.types.PropertyGroup,), {"__annotations__": fields})
    bpy.utils.register_class(_made)
    setattr(bpy.types.WindowManager, _HOLDER, PointerProperty(type=_made))
    _made_from = cards
    follow_preset(offered, "", preset)
    return True


def holder(context: Any) -> Any:
    """What the controls are properties of; None before a server said what it offers."""
    return getattr(context.window_manager, _HOLDER, None)


def follow_preset(offered: Capabilities | None, old: str, new: str) -> None:
    """Move every value that nobody changed from one preset's default to another's."""
    values = holder(bpy.context)
    for card in shown_cards(offered) if values is not None else ():
        field, wanted = field_of(card), default_of(card, new)
        untouched = not values.is_property_set(field) or _same(getattr(values, field), default_of(card, old))
        if untouched and wanted is not None:
            _set(values, card, wanted)


def changed(offered: Capabilities | None, preset: str) -> dict[str, Any]:
    """The settings that differ from the preset, by the server's names."""
    values = holder(bpy.context)
    found = {}
    for card in shown_cards(offered) if values is not None else ():
        value = getattr(values, field_of(card))
        if not _same(value, default_of(card, preset)):
            found[card.name] = value
    return found


def asked_for(offered: Capabilities | None, mine: Any) -> dict[str, Any]:
    """All settings of a request from the panel. Raises ValueError when this server cannot do what is chosen."""
    settings = changed(offered, mine.preset_name)
    settings["mesh.height_m"] = round(mine.height_m, 6)
    settings["mesh.triangles"] = mine.triangles
    if mine.color_as == "IMAGE":
        if texture_fault(offered):
            raise ValueError(texture_fault(offered))
        settings[TEXTURE] = mine.texture_size
    return settings


def apply(offered: Capabilities | None, preset: str, settings: Mapping[str, Any]) -> list[str]:
    """Set the controls to a preset with these changes; returns the names that this server does not have."""
    values = holder(bpy.context)
    cards = {card.name: card for card in shown_cards(offered)} if values is not None else {}
    for name, card in cards.items():
        value = settings.get(name, default_of(card, preset))
        if value is not None:
            _set(values, card, value)
    return [name for name in settings if name not in cards and name not in OWN_CONTROLS]


def _set(values: Any, card: SettingInfo, value: Any) -> None:
    try:
        setattr(
            values, field_of(card), {"integer": int, "number": float, "switch": bool, "choice": str}[card.kind](value)
        )
    except (TypeError, ValueError):
        values.property_unset(field_of(card))  # of another kind or no choice any more: the default stands


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, float) and isinstance(other, (int, float)):
        return abs(value - other) <= 1e-6 * max(1.0, abs(value))  # properties hold 32 bits
    return bool(value == other)


def clear() -> None:
    """Take the controls away."""
    global _made, _made_from
    if hasattr(bpy.types.WindowManager, _HOLDER):
        delattr(bpy.types.WindowManager, _HOLDER)
    if _made is not None:
        bpy.utils.unregister_class(_made)
    _made, _made_from = None, ()
    _choices.clear()
