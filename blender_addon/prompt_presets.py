# SPDX-License-Identifier: GPL-3.0-or-later
"""User presets of the panel's settings, in Blender's own preset system: a menu, and an operator to add and remove."""

from typing import Any

import bpy
from bl_operators.presets import AddPresetBase
from bl_ui.utils import PresetPanel

from .properties import SAVED

FOLDER = "dreamwright/props"
# Not stored in a preset: what is specific to one prop or to this user.
EXCLUDED = ("prompt", "seed", "import_when_done", "mark_as_asset")


class DREAMWRIGHT_MT_presets(bpy.types.Menu):
    """Menu of saved presets."""

    bl_label = "Prop Presets"
    preset_subdir = FOLDER
    preset_operator = "script.execute_preset"
    draw = bpy.types.Menu.draw_preset


class DREAMWRIGHT_PT_presets(PresetPanel, bpy.types.Panel):
    """Popover with the presets."""

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
        """Names of the stored properties."""
        return [f"prop.{name}" for name in SAVED if name not in EXCLUDED]


register, unregister = bpy.utils.register_classes_factory(
    (DREAMWRIGHT_MT_presets, DREAMWRIGHT_PT_presets, DREAMWRIGHT_OT_preset_add)
)
