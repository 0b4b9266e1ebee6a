# SPDX-License-Identifier: GPL-3.0-or-later
"""The artist's own presets, by Blender's own preset system: a menu, and buttons to add and remove."""

from typing import Any

import bpy
from bl_operators.presets import AddPresetBase
from bl_ui.utils import PresetPanel

from .properties import TYPED

FOLDER = "dreamwright/props"
# A preset is a way of working, not a prop: the prompt and the seed stay the artist's.
KEPT = [name for name in TYPED if name not in ("prompt", "seed", "import_when_done", "mark_as_asset")]


class DREAMWRIGHT_MT_presets(bpy.types.Menu):
    """Saved settings."""

    bl_label = "Prop Presets"
    preset_subdir = FOLDER
    preset_operator = "script.execute_preset"
    draw = bpy.types.Menu.draw_preset


class DREAMWRIGHT_PT_presets(PresetPanel, bpy.types.Panel):
    """The popover with the presets."""

    bl_label = "Prop Presets"
    bl_space_type = "VIEW_3D"
    preset_subdir = FOLDER
    preset_operator = "script.execute_preset"
    preset_add_operator = "dreamwright.preset_add"


class DREAMWRIGHT_OT_preset_add(AddPresetBase, bpy.types.Operator):
    """Add or remove a preset."""

    bl_idname = "dreamwright.preset_add"
    bl_label = "Add Prop Preset"
    bl_description = "Save model, preset, size and advanced settings under a name, or remove that name"
    preset_menu = "DREAMWRIGHT_MT_presets"
    preset_subdir = FOLDER
    preset_defines = ["prop = bpy.context.window_manager.dreamwright"]

    @property
    def preset_values(self) -> list[Any]:
        """What is saved."""
        return [f"prop.{name}" for name in KEPT]


register, unregister = bpy.utils.register_classes_factory(
    (DREAMWRIGHT_MT_presets, DREAMWRIGHT_PT_presets, DREAMWRIGHT_OT_preset_add)
)
