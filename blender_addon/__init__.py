# SPDX-License-Identifier: GPL-3.0-or-later
"""Dreamwright for Blender: a prompt becomes a prop, on a server of your own."""

from __future__ import annotations

bl_info = {
    "name": "Dreamwright",
    "author": "The Dreamwright authors",
    "version": (0, 1, 0),
    "blender": (3, 4, 0),
    "location": "3D View > Sidebar > Dream",
    "description": "Props from text, dreamt in 3D on your own server",
    "category": "3D View",
}

try:
    from . import (
        addon_state,
        finetune_operators,
        key_operators,
        local_server,
        operators,
        panel,
        preferences,
        preview,
        prompt_presets,
        properties,
        queue_operators,
        refine_operators,
        server_operators,
        timer,
    )
except ModuleNotFoundError as error:
    if error.name not in ("msgpack", "numpy"):
        raise
    # The zip brings them as wheels where Blender installs those (4.2 and later); before, they are the system's.
    raise ImportError(
        f"Dreamwright needs the Python package {error.name}, which this Blender lacks; on Debian install it with: "
        "apt install python3-zmq python3-msgpack python3-numpy"
    ) from error

# In this order; taken away in the reverse.
_MODULES = (
    preferences,
    addon_state,
    properties,
    preview,
    operators,
    queue_operators,
    server_operators,
    refine_operators,
    key_operators,
    prompt_presets,
    finetune_operators,
    panel,
    local_server,
    timer,
)


def register() -> None:
    """Called by Blender when the add-on is enabled."""
    for module in _MODULES:
        module.register()


def unregister() -> None:
    """Called by Blender when the add-on is disabled."""
    for module in reversed(_MODULES):
        module.unregister()
