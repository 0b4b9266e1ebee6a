# SPDX-License-Identifier: GPL-3.0-or-later
"""The tab "Dreamwright" in the 3D view's sidebar. Only draws."""

from __future__ import annotations

from typing import Any

import bpy

from . import (
    addon_state,
    addresses,
    compat,
    labels,
    local_server,
    lora_operators,
    model_labels,
    refine_operators,
    search_operators,
    server_settings,
)
from .jobs_panel import DREAMWRIGHT_PT_jobs, DREAMWRIGHT_PT_preview, DREAMWRIGHT_UL_jobs
from .panel_base import SidebarPanel, columns, draw_lines
from .wording import say


class DREAMWRIGHT_PT_server(SidebarPanel, bpy.types.Panel):
    """The server and the state of the connection."""

    bl_idname = "DREAMWRIGHT_PT_server"
    bl_label = "Server"

    def draw(self, context: Any) -> None:
        """Draw state, address, buttons and notices."""
        layout, session, chosen = self.layout, addon_state.session(), addon_state.preferences()
        is_local, is_running = addresses.is_local(chosen.address), local_server.is_running()
        fault = local_server.start_fault() if is_local and not session.is_online else ""
        symbol, label, advice = labels.connection_text(
            session.connection_state, session.reason, is_local, is_local and is_running, fault
        )
        row = layout.row(align=True)
        row.label(text=label, icon=compat.icon(symbol, "DOT"))
        if session.is_open:
            row.operator("dreamwright.disconnect", text="", icon="X")
            # A label, since the address cannot change while connected.
            layout.label(text=session.address, translate=False)
        else:
            row.operator("dreamwright.connect", icon=compat.icon("INTERNET", "WORLD"))
            row = layout.row(align=True)
            row.prop(chosen, "address", text="")
            row.operator("dreamwright.paste_connection", text="", icon="PASTEDOWN")
            row.operator("dreamwright.find_servers", text="", icon="VIEWZOOM")
            search_operators.draw_found(layout)
        for line in labels.wrapped(advice, columns(context)):
            layout.label(text=line)
        self._draw_keys(layout, session)
        if session.is_online and session.round_trip_s and not is_local:
            layout.label(text=say("Round trip {time} ms", time=f"{1000 * session.round_trip_s:.0f}"))
        if is_local:
            row = layout.row(align=True)
            if is_running or session.is_online:
                row.operator("dreamwright.stop_server", icon=compat.icon("SNAP_FACE", "CANCEL"))
            else:
                row.operator("dreamwright.start_server", icon="PLAY")
            row.operator("dreamwright.show_log", text="", icon="TEXT")
        self._draw_notices(layout, session, columns(context, 6))

    def _draw_keys(self, layout: Any, session: Any) -> None:
        """Draw both fingerprints, for comparison with the server's, and the operators on keys."""
        if not session.keys.server:
            return
        column = layout.column(align=True)
        column.label(text=say("Server {fingerprint}", fingerprint=session.keys.server_fingerprint), icon="LOCKED")
        if session.keys.own_fingerprint:
            column.label(
                text=say("This computer {fingerprint}", fingerprint=session.keys.own_fingerprint), icon="BLANK1"
            )
        if session.connection_state == "unauthorized":
            column.operator("dreamwright.copy_key", icon="COPYDOWN")
        if not session.is_open:
            column.operator("dreamwright.forget_server_key", icon="TRASH")

    def _draw_notices(self, layout: Any, session: Any, width: int) -> None:
        if not session.notices:
            return
        box = layout.box()
        for notice in session.notices:
            draw_lines(box.column(align=True), notice.text, width, "ERROR" if notice.is_error else "INFO")
            if notice.fix:
                box.operator(notice.fix)
        box.operator("dreamwright.dismiss_notices", icon="X")


class DREAMWRIGHT_PT_prompt(SidebarPanel, bpy.types.Panel):
    """The next prop."""

    bl_idname = "DREAMWRIGHT_PT_prompt"
    bl_label = "Prop"

    def draw_header_preset(self, context: Any) -> None:
        """Draw the menu of user presets."""
        bpy.types.DREAMWRIGHT_PT_presets.draw_panel_header(self.layout)

    def draw(self, context: Any) -> None:
        """Draw prompt, settings and buttons."""
        layout, mine, session = self.layout, addon_state.properties(), addon_state.session()
        layout.use_property_decorate = False
        model = labels.model_info(session.capabilities, mine.model_name)
        hint = model.examples[0] if model and model.examples else "a red mushroom"
        column = layout.column(align=True)
        if not compat.text_field(column, mine, "prompt", hint, 3):
            row = column.row(align=True)
            row.operator("dreamwright.edit_prompt", text="Edit Text", icon="TEXT")
            row.operator("dreamwright.use_text", icon="IMPORT")
        width = columns(context, 4)
        reading = labels.read_prompt_for(session.capabilities, mine.model_name, mine.prompt)
        if text := reading.fault or reading.notice:
            draw_lines(layout, text[:1].upper() + text[1:], width, "ERROR" if reading.fault else "INFO")
        layout.use_property_split = True
        column = layout.column()
        column.prop(mine, "model")
        if model and not model.ready:
            draw_lines(column, model_labels.missing_text(model), width, "INFO")
        column.prop(mine, "preset")
        recipe = server_settings.recipe_of(session.capabilities, server_settings.choice_of(mine))
        if recipe is not None and recipe.family not in ("starter", "clip"):  # found for those models, and well known
            draw_lines(column, recipe.notice[:1].upper() + recipe.notice[1:], width, "INFO")
        column.prop(mine, "seed")
        column.prop(mine, "height")
        column.prop(mine, "triangles")
        self._draw_colors(layout.column(), mine, session, width)
        self._draw_buttons(layout.column(align=True), context)
        column = layout.column(align=True)
        column.use_property_split = False
        column.prop(mine, "import_when_done")
        column.prop(mine, "mark_as_asset")

    def _draw_colors(self, column: Any, mine: Any, session: Any, width: int) -> None:
        column.prop(mine, "color_as")
        if mine.color_as == "IMAGE":
            column.prop(mine, "texture_size")
            draw_lines(column, server_settings.texture_fault(session.capabilities), width, "ERROR")

    def _draw_buttons(self, column: Any, context: Any) -> None:
        row = column.row(align=True)
        row.scale_y = 1.4
        row.operator("dreamwright.generate", icon="OUTLINER_OB_LIGHT")
        # In the same row: others would push the preview out of a small window.
        count = row.row(align=True)
        count.use_property_split, count.scale_x = False, 0.6
        count.prop(addon_state.properties(), "variations", text="")
        row.operator("dreamwright.generate", text="", icon="FILE_REFRESH").again = True
        row = column.row(align=True)
        if refine_operators.selected_mesh(context) is None:
            row.operator("dreamwright.generate_again", icon="RECOVER_LAST")
        else:
            row.operator("dreamwright.generate_again", text="Again")  # half as wide, without room for an icon
            row.operator("dreamwright.refine_mesh", text="Refine", icon=compat.icon("BRUSH_DATA"))
        row.operator("dreamwright.finetune_object", text="", icon=compat.icon("GREASEPENCIL", "TEXT"))


class DREAMWRIGHT_PT_settings(SidebarPanel, bpy.types.Panel):
    """The negative prompt, and the settings that the server describes."""

    bl_idname = "DREAMWRIGHT_PT_settings"
    bl_parent_id = "DREAMWRIGHT_PT_prompt"
    bl_label = "Advanced"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Any) -> None:
        """Draw one control per setting."""
        layout, session = self.layout, addon_state.session()
        layout.label(text="Negative Prompt")
        compat.text_field(layout, addon_state.properties(), "negative", say("what to avoid"), 1)
        layout.use_property_split, layout.use_property_decorate = True, False
        lora_operators.draw_loras(layout, addon_state.properties(), session.capabilities)
        values, settings = server_settings.holder(context), server_settings.visible_settings(session.capabilities)
        if values is None or not settings:
            layout.label(text="Connect to a server to see its settings", icon="INFO")
            return
        for setting in settings:
            # The panel may be drawn between the server's answer and the tick that makes the controls.
            if hasattr(values, server_settings.property_name(setting)):
                layout.prop(values, server_settings.property_name(setting))


register, unregister = bpy.utils.register_classes_factory(
    (
        DREAMWRIGHT_UL_jobs,
        DREAMWRIGHT_PT_server,
        DREAMWRIGHT_PT_prompt,
        DREAMWRIGHT_PT_settings,
        DREAMWRIGHT_PT_jobs,
        DREAMWRIGHT_PT_preview,
    )
)
