# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's preferences: which server to use, and how the local server is run."""

from typing import Any

import bpy
from bpy.props import BoolProperty, IntProperty, StringProperty

from . import addon_state, checks, key_store, labels, storage
from .addresses import DEFAULT_ADDRESS
from .shared.credentials import is_connection_string
from .wording import say


def _suggest_addresses(self: Any, context: Any, text: str) -> list[str]:
    """Suggestions for the address field: this machine, and all servers that were connected to."""
    folder = addon_state.user_folder()
    known = [*storage.known_addresses(folder), *key_store.known_servers(folder)]
    return [address for address in dict.fromkeys([DEFAULT_ADDRESS, *known]) if text in address]


def _on_address_changed(self: Any, context: Any) -> None:
    """Replace a pasted connection string by its address; the key is stored in the user folder."""
    if not is_connection_string(self.address):
        addon_state.on_address_changed(self.address)
        return
    try:
        self.address = addon_state.session().accept_connection_string(self.address).address  # calls this again
    except ValueError as error:
        addon_state.session().notify(str(error))


class DreamwrightPreferences(bpy.types.AddonPreferences):
    """Saved by Blender with its own preferences."""

    bl_idname = __package__

    address: StringProperty(
        name="Server",
        description=(
            "Address of the Dreamwright server, as tcp://host:port, or its connection string; known servers are "
            "suggested while you type"
        ),
        default=DEFAULT_ADDRESS,
        maxlen=300,
        search=_suggest_addresses,
        search_options={"SUGGESTION"},
        update=_on_address_changed,
    )
    connect_on_start: BoolProperty(
        name="Connect on Start",
        description="Connect when Blender starts, so that earlier jobs are listed again",
        default=True,
    )
    command: StringProperty(
        name="Command",
        description="The dreamwright command that starts the local server; empty: found on the search path",
        subtype="FILE_PATH",
        default="",
    )
    stop_with_blender: BoolProperty(
        name="Stop Server with Blender",
        description="Stop the local server when Blender quits; otherwise it finishes its jobs and keeps running",
        default=False,
    )
    tick_budget_ms: IntProperty(
        name="Milliseconds per Tick",
        description="Time that the add-on may take at once to process messages of the server, in milliseconds",
        default=4,
        min=1,
        max=12,
    )

    def draw(self, context: Any) -> None:
        """Draw the preferences."""
        layout = self.layout
        layout.use_property_split = True
        column = layout.column()
        column.prop(self, "address")
        for index, line in enumerate(labels.wrapped(checks.connection_fault(), 64)):
            column.label(text=line, icon="ERROR" if index == 0 else "BLANK1")
        keys = addon_state.session().keys
        if keys.server_fingerprint:
            column.label(
                text=say("Encrypted; the server's fingerprint is {fingerprint}", fingerprint=keys.server_fingerprint),
                icon="LOCKED",
            )
        row = column.row(align=True)
        row.operator("dreamwright.paste_connection", icon="PASTEDOWN")
        row.operator("dreamwright.copy_key", icon="COPYDOWN")
        if keys.server_fingerprint:
            row.operator("dreamwright.forget_server_key", text="", icon="TRASH")
        column.prop(self, "connect_on_start")
        column = layout.column()
        column.prop(self, "command")
        fault = checks.command_fault()
        for index, line in enumerate(labels.wrapped(fault, 64)):
            column.label(text=line, icon="ERROR" if index == 0 else "BLANK1")
        if not fault:
            column.label(text=say("Start Server runs {command}", command=checks.command_path()), icon="CHECKMARK")
        column.prop(self, "stop_with_blender")
        layout.column().prop(self, "tick_budget_ms")
        layout.label(text=say("Files are stored in {folder}", folder=addon_state.user_folder()), icon="FILE_FOLDER")


register, unregister = bpy.utils.register_classes_factory((DreamwrightPreferences,))
