# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of the list of models, on WindowManager, which undo does not change; the data is in the session."""

from typing import Any

import bpy
from bpy.app.handlers import persistent
from bpy.props import CollectionProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

from . import addon_state, labels, model_labels
from .shared.capabilities import ModelInfo


class DreamwrightModelRow(bpy.types.PropertyGroup):
    """One row of the list of models."""

    model: StringProperty(name="Model", description="The model's name on the server")
    percent: FloatProperty(
        name="Progress",
        description="Completed share of the download",
        min=0,
        max=100,
        precision=0,
        subtype="PERCENTAGE",
    )


class DreamwrightModels(bpy.types.PropertyGroup):
    """The list of models and its selection."""

    rows: CollectionProperty(name="Models", description="Models of the server", type=DreamwrightModelRow)
    index: IntProperty(name="Model", description="The selected model", min=-1, default=-1)


def models() -> Any:
    """The list (`DreamwrightModels`), read anew: loading a file replaces WindowManager."""
    return bpy.context.window_manager.dreamwright_models


def active_row() -> Any:
    """The selected row; None where there is none."""
    mine = models()
    return mine.rows[mine.index] if 0 <= mine.index < len(mine.rows) else None


def active_model() -> ModelInfo | None:
    """What the server says of the selected model."""
    row = active_row()
    return labels.model_info(addon_state.session().capabilities, row.model) if row is not None else None


def sync() -> None:
    """Update the rows from the session and keep the selected model selected."""
    session, mine = addon_state.session(), models()
    names = [info.name for info in session.capabilities.models] if session.capabilities else []
    if [row.model for row in mine.rows] != names:
        selected = active_row()
        chosen = selected.model if selected is not None else addon_state.properties().model_name
        mine.rows.clear()
        for name in names:
            mine.rows.add().model = name
        mine.index = names.index(chosen) if chosen in names else min(0, len(names) - 1)
    for row in mine.rows:
        download = session.models.downloads.get(row.model)
        percent = 100 * model_labels.fraction(download) if download is not None else 0.0
        if abs(row.percent - percent) > 1e-3:
            row.percent = percent


@persistent
def _after_load(*_: Any) -> None:
    sync()


_register, _unregister = bpy.utils.register_classes_factory((DreamwrightModelRow, DreamwrightModels))


def register() -> None:
    """Add the list to WindowManager."""
    _register()
    bpy.types.WindowManager.dreamwright_models = PointerProperty(type=DreamwrightModels)
    bpy.app.handlers.load_post.append(_after_load)


def unregister() -> None:
    """Remove it."""
    bpy.app.handlers.load_post.remove(_after_load)
    del bpy.types.WindowManager.dreamwright_models
    _unregister()
