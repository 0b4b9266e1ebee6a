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
    preview,
    refine_operators,
    server_settings,
)
from .job_operators import PANEL
from .shared.job_states import ENDED, JobState


def _columns(context: Any, margin: int = 0) -> int:
    """Characters of a label that fit into the sidebar, less a `margin` for an icon or a box."""
    if context.region is None:
        return labels.WIDTH
    return max(16, int((context.region.width / context.preferences.system.ui_scale - 48) / 6.4) - margin)


def _draw_lines(layout: Any, text: str, width: int, icon: str) -> None:
    """Draw a wrapped text with an icon at its first line."""
    for index, line in enumerate(labels.wrapped(text, width)):
        layout.label(text=line, icon=icon if index == 0 else "BLANK1")


class _SidebarPanel:
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Dreamwright"


class DREAMWRIGHT_UL_jobs(bpy.types.UIList):
    """The jobs of the server, newest first."""

    def draw_item(
        self,
        context: Any,
        layout: Any,
        data: Any,
        item: Any,
        icon: Any,
        active_data: Any,
        active_property: Any,
        index: int = 0,
    ) -> None:
        """Draw a row: icon, prompt, and state or progress."""
        job = addon_state.session().jobs.get(item.job)
        if job is None:
            layout.label(text="Deleted")
            return
        symbol, label = labels.STATE_LABELS[job.state]
        row = layout.row(align=True)
        row.label(text=labels.short(job.prompt, 40), icon=compat.icon(symbol, "DOT"))
        if job.pinned:
            row.label(text="", icon="PINNED")
        end = row.row()
        end.alignment = "RIGHT"
        is_running = job.state == JobState.RUNNING.value
        end.label(text=f"{round(100 * labels.progress_fraction(job))} %" if is_running else label)

    def filter_items(self, context: Any, data: Any, property: str) -> tuple[list[int], list[int]]:
        """Show the rows whose prompt contains the text of the search field."""
        rows, wanted = getattr(data, property), self.filter_name.lower()
        jobs = addon_state.session().jobs
        found = [wanted in jobs[row.job].prompt.lower() if row.job in jobs else False for row in rows]
        return ([self.bitflag_filter_item if hit else 0 for hit in found] if wanted else []), []


class DREAMWRIGHT_PT_server(_SidebarPanel, bpy.types.Panel):
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
            layout.label(text=session.address)  # a label, since the address cannot change while connected
        else:
            row.operator("dreamwright.connect", icon=compat.icon("INTERNET", "WORLD"))
            row = layout.row(align=True)
            row.prop(chosen, "address", text="")
            row.operator("dreamwright.paste_connection", text="", icon="PASTEDOWN")
        for line in labels.wrapped(advice, _columns(context)):
            layout.label(text=line)
        self._draw_keys(layout, session)
        if session.is_online and session.round_trip_s and not is_local:
            layout.label(text=f"Round trip {1000 * session.round_trip_s:.0f} ms")
        if is_local:
            row = layout.row(align=True)
            if is_running or session.is_online:
                row.operator("dreamwright.stop_server", icon=compat.icon("SNAP_FACE", "CANCEL"))
            else:
                row.operator("dreamwright.start_server", icon="PLAY")
            row.operator("dreamwright.show_log", text="", icon="TEXT")
        self._draw_notices(layout, session, _columns(context, 6))

    def _draw_keys(self, layout: Any, session: Any) -> None:
        """Draw both fingerprints, for comparison with the server's, and the operators on keys."""
        if not session.keys.server:
            return
        column = layout.column(align=True)
        column.label(text=f"Server {session.keys.server_fingerprint}", icon="LOCKED")
        if session.keys.own_fingerprint:
            column.label(text=f"This computer {session.keys.own_fingerprint}", icon="BLANK1")
        if session.connection_state == "unauthorized":
            column.operator("dreamwright.copy_key", icon="COPYDOWN")
        if not session.is_open:
            column.operator("dreamwright.forget_server_key", icon="TRASH")

    def _draw_notices(self, layout: Any, session: Any, width: int) -> None:
        if not session.notices:
            return
        box = layout.box()
        for notice in session.notices:
            _draw_lines(box.column(align=True), notice.text, width, "ERROR" if notice.is_error else "INFO")
            if notice.fix:
                box.operator(notice.fix)
        box.operator("dreamwright.dismiss_notices", icon="X")


class DREAMWRIGHT_PT_prompt(_SidebarPanel, bpy.types.Panel):
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
        width = _columns(context, 4)
        reading = labels.read_prompt_for(session.capabilities, mine.model_name, mine.prompt)
        if text := reading.fault or reading.notice:
            _draw_lines(layout, text[:1].upper() + text[1:], width, "ERROR" if reading.fault else "INFO")
        layout.use_property_split = True
        column = layout.column()
        column.prop(mine, "model")
        if model and not model.ready:
            _draw_lines(column, model.missing, width, "INFO")
        column.prop(mine, "preset")
        recipe = server_settings.recipe_of(session.capabilities, server_settings.choice_of(mine))
        if recipe is not None and recipe.family not in ("starter", "clip"):  # found for those models, and well known
            _draw_lines(column, recipe.notice[:1].upper() + recipe.notice[1:], width, "INFO")
        column.prop(mine, "seed")
        column.prop(mine, "height_m")
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
            _draw_lines(column, server_settings.texture_fault(session.capabilities), width, "ERROR")

    def _draw_buttons(self, column: Any, context: Any) -> None:
        row = column.row(align=True)
        row.scale_y = 1.4
        row.operator("dreamwright.generate", icon="OUTLINER_OB_LIGHT")
        column.operator("dreamwright.generate", text="Generate with Next Seed", icon="FILE_REFRESH").again = True
        row = column.row(align=True)  # one row: another would push the preview out of a small window
        if refine_operators.selected_mesh(context) is None:
            row.operator("dreamwright.generate_again", icon="RECOVER_LAST")
        else:
            row.operator("dreamwright.generate_again", text="Again")  # half as wide, without room for an icon
            row.operator("dreamwright.refine_mesh", text="Refine", icon=compat.icon("BRUSH_DATA"))
        row.operator("dreamwright.finetune_object", text="", icon=compat.icon("GREASEPENCIL", "TEXT"))


class DREAMWRIGHT_PT_settings(_SidebarPanel, bpy.types.Panel):
    """The negative prompt, and the settings that the server describes."""

    bl_idname = "DREAMWRIGHT_PT_settings"
    bl_parent_id = "DREAMWRIGHT_PT_prompt"
    bl_label = "Advanced"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Any) -> None:
        """Draw one control per setting."""
        layout, session = self.layout, addon_state.session()
        layout.label(text="Negative Prompt")
        compat.text_field(layout, addon_state.properties(), "negative", "what to avoid", 1)
        layout.use_property_split, layout.use_property_decorate = True, False
        values, settings = server_settings.holder(context), server_settings.visible_settings(session.capabilities)
        if values is None or not settings:
            layout.label(text="Connect to a server to see its settings", icon="INFO")
            return
        for setting in settings:
            # The panel may be drawn between the server's answer and the tick that makes the controls.
            if hasattr(values, server_settings.property_name(setting)):
                layout.prop(values, server_settings.property_name(setting))


class DREAMWRIGHT_PT_jobs(_SidebarPanel, bpy.types.Panel):
    """The jobs of the server."""

    bl_idname = "DREAMWRIGHT_PT_jobs"
    bl_label = "Jobs"

    def draw(self, context: Any) -> None:
        """Draw the list, pending submissions and the selected job."""
        layout, mine, session = self.layout, addon_state.properties(), addon_state.session()
        layout.context_pointer_set(PANEL, mine)
        row = layout.row()
        row.template_list("DREAMWRIGHT_UL_jobs", "", mine, "job_rows", mine, "job_index", rows=3)
        side = row.column(align=True)
        side.operator("dreamwright.cancel", text="", icon="CANCEL")
        side.operator("dreamwright.pause", text="", icon="PAUSE")
        side.operator("dreamwright.resume", text="", icon="PLAY")
        side.operator("dreamwright.delete_job", text="", icon="TRASH")
        self._draw_pending(layout, session, _columns(context, 4))
        job = addon_state.active_job()
        if job is not None:
            self._draw_job(layout, mine.job_rows[mine.job_index], session, job, _columns(context))

    def _draw_pending(self, layout: Any, session: Any, width: int) -> None:
        for ticket, request in session.pending.items():
            uploads, state = session.submissions.uploads, "Waiting:"
            if session.is_online:
                is_uploading = ticket in uploads.uploads
                state = f"{100 * uploads.share(ticket):.0f} % sent:" if is_uploading else "Sending"
            row = layout.row(align=True)
            row.label(text=f"{state} “{labels.short(request.prompt, 30)}”", icon="TIME")
            row.operator("dreamwright.cancel_pending", text="", icon="X").ticket = ticket
        if session.pending and not session.is_online:
            text = "Sent as soon as the server answers, even if Blender is closed in between"
            for line in labels.wrapped(text, width):
                layout.label(text=line, icon="BLANK1")

    def _draw_job(self, layout: Any, job_row: Any, session: Any, job: Any, width: int) -> None:
        column, has_ended = layout.column(align=True), JobState(job.state) in ENDED
        if not has_ended:
            fraction = labels.progress_fraction(job)
            compat.progress(column, job_row, "percent", fraction, labels.STATE_LABELS[job.state][1])
        progress = labels.progress_text(job)
        texts = [progress] if len(progress) <= width else progress.split(", ")
        for text in (*texts, labels.error_text(job), job.message):
            for line in labels.wrapped(text, width):
                column.label(text=line)
        download = session.downloads.get(job.job)
        if download is not None:
            compat.progress(column, job_row, "percent", download.share, "Downloading the mesh")
        row = layout.row()
        row.scale_y = 1.3
        row.operator("dreamwright.import_mesh", icon="IMPORT")
        if has_ended:
            row.operator("dreamwright.finetune_job", text="", icon=compat.icon("GREASEPENCIL", "TEXT"))
        row = layout.row(align=True)
        parent = session.jobs.get(job.parent_job)
        row.label(text=labels.details_text(job, parent.prompt if parent else ""))
        if not has_ended:
            row.operator("dreamwright.raise_priority", text="", icon="TRIA_UP")
            row.operator("dreamwright.lower_priority", text="", icon="TRIA_DOWN")
        pin = row.operator("dreamwright.pin", text="", icon="PINNED" if job.pinned else "UNPINNED", depress=job.pinned)
        pin.keep = not job.pinned


class DREAMWRIGHT_PT_preview(_SidebarPanel, bpy.types.Panel):
    """The live preview and its history."""

    bl_idname = "DREAMWRIGHT_PT_preview"
    bl_label = "Preview"

    def draw(self, context: Any) -> None:
        """Draw the buttons and the slider."""
        layout, mine = self.layout, addon_state.properties()
        layout.operator("dreamwright.show_preview", icon="IMAGE_DATA")
        frame = preview.current_frame()
        if frame is None:
            layout.label(text="No preview yet")
            return
        row = layout.row(align=True)
        row.operator("dreamwright.step_preview", text="", icon="TRIA_LEFT").offset = -1
        row.prop(mine, "preview_position", text=f"Step {frame.step}", slider=True)
        row.operator("dreamwright.step_preview", text="", icon="TRIA_RIGHT").offset = 1
        row.operator("dreamwright.step_preview", text="", icon="FF").offset = 0


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
