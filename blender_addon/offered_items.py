# SPDX-License-Identifier: GPL-3.0-or-later
"""The models and presets that the server offers, as items of the panel's menus."""

import zlib
from typing import Any

from . import addon_state, labels, server_settings
from .wording import say

EnumItem = tuple[str, str, str, int]

_items: dict[str, list[EnumItem]] = {}  # kept alive: Blender holds only pointers to the strings


def items_of(kind: str, offered: list[tuple[str, str]], chosen: str) -> list[EnumItem]:
    """Enum items whose numbers depend on the names only, so that a choice survives another server's order."""
    if chosen and chosen not in [name for name, _ in offered]:
        offered = [*offered, (chosen, say("This server does not offer it"))]
    items = [(name, labels.short(name, 40), tip.rstrip("."), number_of(name)) for name, tip in offered]
    _items[kind] = items or [("NONE", say("No server yet"), say("Connect to a server to see what it offers"), 0)]
    return _items[kind]


def number_of(name: str) -> int:
    """The number of the item of that name."""
    # Blender's menus keep the number of the pressed item in a 32-bit float, which is exact for 24-bit integers.
    return zlib.crc32(name.encode()) & 0xFFFFFF


def model_items(self: Any, context: Any) -> list[EnumItem]:
    """The menu of models."""
    capabilities = addon_state.session().capabilities
    models = capabilities.models if capabilities else ()
    offered = [
        (
            m.name,
            m.summary if m.ready else say("{summary} (not ready: {missing})", summary=m.summary, missing=m.missing),
        )
        for m in models
    ]
    return items_of("model", offered, self.model_name)


def preset_items(self: Any, context: Any) -> list[EnumItem]:
    """The menu of presets."""
    capabilities = addon_state.session().capabilities
    return items_of("preset", server_settings.offered_presets(capabilities, self.model_name), self.preset_name)


def name_of(kind: str, number: int) -> str:
    """The name of the item with that number in the menu that was drawn last; "" for none."""
    return next((item[0] for item in _items.get(kind, ()) if item[3] == number), "") if number else ""


def forget() -> None:
    """Let go of the menus' items."""
    _items.clear()
