# SPDX-License-Identifier: GPL-3.0-or-later
"""Dreamwright for Blender: text prompts become 3D props, generated on the user's own server."""

from __future__ import annotations

bl_info = {
    "name": "Dreamwright",
    "author": "The Dreamwright authors",
    "version": (0, 1, 0),
    "blender": (3, 4, 0),
    "location": "3D View > Sidebar > Dreamwright",
    "description": "Props from text, generated in 3D on your own server",
    "category": "3D View",
}

try:
    from . import (
        active_list,
        addon_state,
        connection_operators,
        contact_sheet,
        editor_image,
        finetune_operators,
        finish_operators,
        finish_panel,
        generate_operators,
        group_operators,
        import_places,
        job_operators,
        key_operators,
        list_operators,
        live_mesh,
        local_server,
        lora_operators,
        model_operators,
        model_rows,
        models_panel,
        panel,
        preferences,
        preview,
        preview_operators,
        prompt_presets,
        properties,
        queue_operators,
        refine_operators,
        search_operators,
        server_operators,
        sheet_picking,
        text_operators,
        thumbnails,
        timer,
        translations,
    )
except ModuleNotFoundError as error:
    if error.name not in ("msgpack", "numpy"):
        raise
    # From 4.2 on Blender installs the wheels in the zip; earlier versions use the system's packages.
    raise ImportError(
        f"Dreamwright needs the Python package {error.name}, which this Blender does not have; on Debian install it "
        "with: apt install python3-zmq python3-msgpack python3-numpy"
    ) from error

# In the order of registration; unregistered in reverse.
_MODULES = (
    translations,
    preferences,
    addon_state,
    import_places,
    properties,
    model_rows,
    editor_image,
    preview,
    contact_sheet,
    thumbnails,
    live_mesh,
    connection_operators,
    generate_operators,
    text_operators,
    job_operators,
    queue_operators,
    preview_operators,
    server_operators,
    refine_operators,
    key_operators,
    search_operators,
    prompt_presets,
    finetune_operators,
    group_operators,
    sheet_picking,
    lora_operators,
    model_operators,
    panel,
    models_panel,
    finish_operators,
    finish_panel,
    list_operators,
    active_list,
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
