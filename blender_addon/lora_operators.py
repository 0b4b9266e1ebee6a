# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRAs in the panel: those that the server offers by name, for the models that take them."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import EnumProperty

from . import addon_state, checks, labels
from .shared.capabilities import Capabilities
from .wording import say

SEPARATOR = "; "

_items: list[tuple[str, str, str]] = []  # kept alive: Blender holds only pointers to the strings


def _lora_items(owner: Any, context: Any) -> list[tuple[str, str, str]]:
    capabilities = addon_state.session().capabilities
    _items[:] = [
        (name, name, say("Add {name} with weight 1", name=name))
        for name in (capabilities.loras if capabilities else ())
    ]
    return _items


def _fault() -> str:
    """Why no LoRA can be added, as a sentence; "" when one can."""
    capabilities = addon_state.session().capabilities
    if not labels.takes_loras(capabilities, addon_state.properties().model_name):
        return say("The chosen model takes no LoRAs; choose one of Stable Diffusion 1.x, 2.x or XL")
    if capabilities is None or not capabilities.loras:
        return say(
            "This server offers no LoRAs; its operator puts them into the folder that it is started with (--loras)"
        )
    return ""


class DREAMWRIGHT_OT_add_lora(bpy.types.Operator):
    """Add a LoRA of the server to those of the next prop."""

    bl_idname = "dreamwright.add_lora"
    bl_label = "Add LoRA"
    bl_description = "Add one of the server's LoRAs; its weight follows the colon"
    bl_options = {"REGISTER"}

    lora: EnumProperty(name="LoRA", description="Name of the LoRA on the server", items=_lora_items)

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only while connected, for a model that takes LoRAs on a server that has some."""
        return checks.allow(cls, checks.offline_fault() or _fault())

    def execute(self, context: Any) -> set[str]:
        """Append the name with weight 1, unless it is there already."""
        mine = addon_state.properties()
        given = [part.strip() for part in mine.loras.split(SEPARATOR.strip()) if part.strip()]
        if self.lora not in [part.rpartition(":")[0] or part for part in given]:
            mine.loras = SEPARATOR.join([*given, f"{self.lora}:1"])
        return {"FINISHED"}


def draw_loras(layout: Any, mine: Any, capabilities: Capabilities | None) -> None:
    """Draw the text of the LoRAs and the menu of those that there are, for a model that takes any."""
    if not labels.takes_loras(capabilities, mine.model_name):
        return
    row = layout.row(align=True)
    row.prop(mine, "loras")
    row.operator_menu_enum("dreamwright.add_lora", "lora", text="", icon="ADD")


register, unregister = bpy.utils.register_classes_factory((DREAMWRIGHT_OT_add_lora,))
