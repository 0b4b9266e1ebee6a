# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's preferences: which server, and how the one on this machine is run."""

from pathlib import Path
from typing import Any

import bpy
from bpy.props import BoolProperty, IntProperty, StringProperty

from . import compat, wording

DEFAULT_ADDRESS = "tcp://127.0.0.1:47630"


class DreamwrightPreferences(bpy.types.AddonPreferences):
    """Kept by Blender with its own preferences."""

    bl_idname = __package__

    address: StringProperty(
        name="Server",
        description="Where the Dreamwright server listens, as tcp://host:port",
        default=DEFAULT_ADDRESS,
        maxlen=300,
    )
    connect_on_start: BoolProperty(
        name="Connect on Start",
        description="Connect when Blender starts, so that jobs from before are back in the list",
        default=True,
    )
    command: StringProperty(
        name="Command",
        description="The dreamwright command that starts the local server; looked for on the search path when empty",
        subtype="FILE_PATH",
        default="",
    )
    stop_with_blender: BoolProperty(
        name="Stop Server with Blender",
        description="Stop the local server when Blender quits; otherwise it finishes its jobs and is there next time",
        default=False,
    )
    tick_budget_ms: IntProperty(
        name="Time per Tick",
        description="How many milliseconds the add-on may take at a time to read what the server sent",
        default=4,
        min=1,
        max=12,
    )

    def draw(self, context: Any) -> None:
        """Draw the preferences."""
        layout = self.layout
        layout.use_property_split = True
        column = layout.column(heading="Server")
        column.prop(self, "address")
        fault = wording.address_fault(self.address) or ("" if wording.is_local(self.address) else compat.online_fault())
        if fault:
            column.label(text=fault, icon="ERROR")
        column.prop(self, "connect_on_start")
        column = layout.column(heading="Local Server")
        column.prop(self, "command")
        column.prop(self, "stop_with_blender")
        layout.column().prop(self, "tick_budget_ms")
        layout.label(text=f"Files are kept in {user_folder()}", icon="FILE_FOLDER")


def preferences() -> DreamwrightPreferences:
    """The preferences of this add-on."""
    return bpy.context.preferences.addons[__package__].preferences


def user_folder() -> Path:
    """The folder that this add-on may write to. Raises OSError."""
    return compat.user_folder(__package__)


register, unregister = bpy.utils.register_classes_factory((DreamwrightPreferences,))
