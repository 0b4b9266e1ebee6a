# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's preferences: which server, and how the one on this machine is run."""

from pathlib import Path
from typing import Any

import bpy
from bpy.props import BoolProperty, IntProperty, StringProperty

from . import compat, key_store, labels, storage
from .shared.credentials import is_connection_string

DEFAULT_ADDRESS = "tcp://127.0.0.1:47630"


def _known_servers(self: Any, context: Any, text: str) -> list[str]:
    """What the address field offers to choose from: this machine, and every server that was connected to."""
    known = [*storage.known_addresses(user_folder()), *key_store.known_servers(user_folder())]
    return [address for address in dict.fromkeys([DEFAULT_ADDRESS, *known]) if text in address]


def _address_changed(self: Any, context: Any) -> None:
    """A pasted connection string becomes a plain address; the key goes into the user folder, not into these preferences."""
    from . import addon_state  # which needs this module

    if not is_connection_string(self.address):
        addon_state.address_changed(self.address)
        return
    try:
        self.address = addon_state.session().pair(self.address).address  # comes here once more
    except ValueError as error:
        addon_state.session().say(str(error))


class DreamwrightPreferences(bpy.types.AddonPreferences):
    """Kept by Blender with its own preferences."""

    bl_idname = __package__

    address: StringProperty(
        name="Server",
        description="Where the Dreamwright server listens, as tcp://host:port, or its connection string; servers from before are offered while you type",
        default=DEFAULT_ADDRESS,
        maxlen=300,
        search=_known_servers,
        search_options={"SUGGESTION"},
        update=_address_changed,
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
        name="Milliseconds per Tick",
        description="How many milliseconds the add-on may take at a time to read what the server sent",
        default=4,
        min=1,
        max=12,
    )

    def draw(self, context: Any) -> None:
        """Draw the preferences."""
        from . import addon_state, local_server, operators  # which need this module

        layout = self.layout
        layout.use_property_split = True
        column = layout.column()
        column.prop(self, "address")
        for index, line in enumerate(labels.wrapped(operators.connection_fault(), 64)):
            column.label(text=line, icon="ERROR" if index == 0 else "BLANK1")
        keys = addon_state.session().keys
        if keys.server_mark:
            column.label(text=f"Encrypted; the server's fingerprint is {keys.server_mark}", icon="LOCKED")
        row = column.row(align=True)
        row.operator("dreamwright.paste_connection", icon="PASTEDOWN")
        row.operator("dreamwright.copy_key", icon="COPYDOWN")
        if keys.server_mark:
            row.operator("dreamwright.forget_server_key", text="", icon="TRASH")
        column.prop(self, "connect_on_start")
        column = layout.column()
        column.prop(self, "command")
        missing = local_server.command_fault()
        if missing:
            for index, line in enumerate(labels.wrapped(missing, 64)):
                column.label(text=line, icon="ERROR" if index == 0 else "BLANK1")
        else:
            column.label(text=f"Start Server runs {local_server.command_path()}", icon="CHECKMARK")
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
