# SPDX-License-Identifier: GPL-3.0-or-later
"""The tab "Dream" in the 3D view's sidebar. It only draws."""

from __future__ import annotations

from typing import Any

import bpy

from . import addon_state, compat, labels, local_server, preview, properties, refine_operators, server_settings
from .operators import PANEL
from .preferences import preferences
from .shared.job_states import ENDED, JobState


def _fitting(context: Any, less: int = 0) -> int:
    """How many characters of a label fit into the sidebar, which does not wrap by itself; `less` for an icon or a box."""
    if context.region is None:
        return labels.WIDTH
    return max(16, int((context.region.width / context.preferences.system.ui_scale - 48) / 6.4) - less)


class _InDream:
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Dream"


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
        """One row: state as icon and word, the prompt, and progress."""
        job = addon_state.session().jobs.get(item.job)
        if job is None:
            layout.label(text="Gone")
            return
        symbol, word = labels.STATE_LOOKS[job.state]
        row = layout.row(align=True)
        row.label(text=labels.short(job.prompt, 40), icon=compat.icon(symbol, "DOT"))
        if job.pinned:
            row.label(text="", icon="PINNED")
        end = row.row()
        end.alignment = "RIGHT"
        end.label(text=f"{round(100 * labels.share_done(job))} %" if job.state == "running" else word)

    def filter_items(self, context: Any, data: Any, property: str) -> tuple[list[int], list[int]]:
        """Rows whose prompt holds the text in the search field."""
        rows, wanted = getattr(data, property), self.filter_name.lower()
        jobs = addon_state.session().jobs
        found = [wanted in jobs[row.job].prompt.lower() if row.job in jobs else False for row in rows]
        return ([self.bitflag_filter_item if hit else 0 for hit in found] if wanted else []), []


class DREAMWRIGHT_PT_server(_InDream, bpy.types.Panel):
    """Which server, and how it stands."""

    bl_idname = "DREAMWRIGHT_PT_server"
    bl_label = "Server"

    def draw(self, context: Any) -> None:
        """State, address, buttons and messages."""
        layout, session, chosen = self.layout, addon_state.session(), preferences()
        here, running = labels.is_local(chosen.address), local_server.is_running()
        fault = local_server.start_fault() if here and not session.is_online else ""
        symbol, word, advice = labels.link_words(session.connection_state, session.reason, here, here and running, fault)
        row = layout.row(align=True)
        row.label(text=word, icon=compat.icon(symbol, "DOT"))
        if session.is_open:
            row.operator("dreamwright.disconnect", text="", icon="X")
        else:
            row.operator("dreamwright.connect", icon=compat.icon("INTERNET", "WORLD"))
        if session.is_open:
            layout.label(text=session.address)  # no greyed field: to change it, disconnect
        else:
            row = layout.row(align=True)
            row.prop(chosen, "address", text="")
            row.operator("dreamwright.paste_connection", text="", icon="PASTEDOWN")
        for line in labels.wrapped(advice, _fitting(context)):
            layout.label(text=line)
        self._keys(layout, session)
        if session.is_online and session.round_trip_s and not here:
            layout.label(text=f"Answers in {1000 * session.round_trip_s:.0f} ms")
        if here:
            row = layout.row(align=True)
            if running or session.is_online:
                row.operator("dreamwright.stop_server", icon=compat.icon("SNAP_FACE", "CANCEL"))
            else:
                row.operator("dreamwright.start_server", icon="PLAY")
            row.operator("dreamwright.show_log", text="", icon="TEXT")
        self._notices(layout, session, _fitting(context, 6))

    def _keys(self, layout: Any, session: Any) -> None:
        """Both fingerprints, to be compared with what the server shows, and this computer's key where it is asked for."""
        if not session.keys.server:
            return
        column = layout.column(align=True)
        column.label(text=f"Server {session.keys.server_mark}", icon="LOCKED")
        if session.keys.own_mark:
            column.label(text=f"This computer {session.keys.own_mark}", icon="BLANK1")
        if session.connection_state == "unauthorized":
            column.operator("dreamwright.copy_key", icon="COPYDOWN")
        if not session.is_open:
            column.operator("dreamwright.forget_server_key", icon="TRASH")

    def _notices(self, layout: Any, session: Any, width: int) -> None:
        if not session.notices:
            return
        box = layout.box()
        for notice in session.notices:
            column = box.column(align=True)
            for index, line in enumerate(labels.wrapped(notice.text, width)):
                column.label(text=line, icon=("ERROR" if notice.is_error else "INFO") if index == 0 else "BLANK1")
            if notice.fix:
                box.operator(notice.fix)
        box.operator("dreamwright.dismiss", icon="X")


class DREAMWRIGHT_PT_prompt(_InDream, bpy.types.Panel):
    """What to make."""

    bl_idname = "DREAMWRIGHT_PT_prompt"
    bl_label = "Prop"

    def draw_header_preset(self, context: Any) -> None:
        """The presets of Blender's own system."""
        bpy.types.DREAMWRIGHT_PT_presets.draw_panel_header(self.layout)

    def draw(self, context: Any) -> None:
        """Prompt and settings."""
        layout, mine, session = self.layout, properties.artist(), addon_state.session()
        layout.use_property_decorate = False
        card = self._model_card(session, mine.model_name)
        hint = card.examples[0] if card and card.examples else "a red mushroom"
        column = layout.column(align=True)
        if not compat.text_field(column, mine, "prompt", hint, 3):
            row = column.row(align=True)
            row.operator("dreamwright.edit_prompt", text="Edit Text", icon="TEXT")
            row.operator("dreamwright.use_text", icon="IMPORT")
        reading = labels.read_prompt_for(session.offered, mine.model_name, mine.prompt)
        if text := reading.fault or reading.notice:
            icon = "ERROR" if reading.fault else "INFO"
            for index, line in enumerate(labels.wrapped(text[:1].upper() + text[1:], _fitting(context, 4))):
                layout.label(text=line, icon=icon if index == 0 else "BLANK1")
        layout.use_property_split = True
        column = layout.column()
        column.prop(mine, "model")
        if card and not card.ready:
            for index, line in enumerate(labels.wrapped(card.missing, _fitting(context, 4))):
                column.label(text=line, icon="INFO" if index == 0 else "BLANK1")
        column.prop(mine, "preset")
        column.prop(mine, "seed")
        column.prop(mine, "height_m")
        column.prop(mine, "triangles")
        self._colors(layout.column(), mine, session, _fitting(context, 4))
        column = layout.column(align=True)
        row = column.row(align=True)
        row.scale_y = 1.4
        row.operator("dreamwright.generate", icon="OUTLINER_OB_LIGHT")
        column.operator("dreamwright.generate", text="Generate Again", icon="FILE_REFRESH").again = True
        row = column.row(align=True)  # one for all: a row more would push the preview out of a small window
        if refine_operators.subject(context) is None:
            row.operator("dreamwright.dream_again", icon="RECOVER_LAST")
        else:
            row.operator("dreamwright.dream_again")  # half as wide, it has no room for an icon
            row.operator("dreamwright.refine_mesh", text="Refine", icon=compat.icon("BRUSH_DATA"))
        row.operator("dreamwright.refine_prompt", text="", icon=compat.icon("GREASEPENCIL", "TEXT"))
        column = layout.column(align=True)
        column.use_property_split = False
        column.prop(mine, "import_when_done")
        column.prop(mine, "mark_as_asset")

    def _colors(self, column: Any, mine: Any, session: Any, width: int) -> None:
        column.prop(mine, "color_as")
        if mine.color_as == "IMAGE":
            column.prop(mine, "texture_size")
            for index, line in enumerate(labels.wrapped(server_settings.texture_fault(session.offered), width)):
                column.label(text=line, icon="ERROR" if index == 0 else "BLANK1")

    def _model_card(self, session: Any, name: str) -> Any:
        models = session.offered.models if session.offered else ()
        return next((model for model in models if model.name == name), None)


class DREAMWRIGHT_PT_settings(_InDream, bpy.types.Panel):
    """What few props need: the negative prompt, and the settings that the server describes."""

    bl_idname = "DREAMWRIGHT_PT_settings"
    bl_parent_id = "DREAMWRIGHT_PT_prompt"
    bl_label = "Advanced"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Any) -> None:
        """One control a setting card."""
        layout, session = self.layout, addon_state.session()
        layout.label(text="Negative Prompt")
        compat.text_field(layout, properties.artist(), "negative", "what to keep away from", 1)
        layout.use_property_split, layout.use_property_decorate = True, False
        values, cards = server_settings.holder(context), server_settings.shown_cards(session.offered)
        if values is None or not cards:
            layout.label(text="Connect to a server to see its settings", icon="INFO")
            return
        for card in cards:
            # The panel may be drawn between a server's answer and the tick that makes its controls.
            if hasattr(values, server_settings.field_of(card)):
                layout.prop(values, server_settings.field_of(card))


class DREAMWRIGHT_PT_jobs(_InDream, bpy.types.Panel):
    """The jobs of the server."""

    bl_idname = "DREAMWRIGHT_PT_jobs"
    bl_label = "Jobs"

    def draw(self, context: Any) -> None:
        """The list and the chosen job."""
        layout, mine, session = self.layout, properties.artist(), addon_state.session()
        layout.context_pointer_set(PANEL, mine)
        row = layout.row()
        row.template_list("DREAMWRIGHT_UL_jobs", "", mine, "rows", mine, "row_index", rows=3)
        side = row.column(align=True)
        side.operator("dreamwright.cancel", text="", icon="CANCEL")
        side.operator("dreamwright.pause", text="", icon="PAUSE")
        side.operator("dreamwright.resume", text="", icon="PLAY")
        side.operator("dreamwright.remove", text="", icon="TRASH")
        self._waiting(layout, session, _fitting(context, 4))
        job = properties.active_job()
        if job is not None:
            self._job(layout, mine, session, job, _fitting(context))

    def _waiting(self, layout: Any, session: Any, width: int) -> None:
        for ticket, asked in session.outbox.items():
            row = layout.row(align=True)
            sending = (
                "Sending"
                if ticket not in session.meshes.uploads
                else f"{100 * session.meshes.share(ticket):.0f} % sent:"
            )
            row.label(
                text=f"{sending if session.is_online else 'Waiting:'} “{labels.short(asked.prompt, 30)}”", icon="TIME"
            )
            row.operator("dreamwright.withdraw", text="", icon="X").ticket = ticket
        if session.outbox and not session.is_online:
            text = "Sent as soon as the server answers, even if Blender is closed in between"
            for line in labels.wrapped(text, width):
                layout.label(text=line, icon="BLANK1")

    def _job(self, layout: Any, mine: Any, session: Any, job: Any, width: int) -> None:
        row_of_job = mine.rows[mine.row_index]
        column = layout.column(align=True)
        if JobState(job.state) not in ENDED:
            compat.progress(column, row_of_job, "percent", labels.share_done(job), labels.STATE_LOOKS[job.state][1])
        progress = labels.progress_text(job)
        for text in (
            *([progress] if len(progress) <= width else progress.split(", ")),
            labels.trouble(job),
            job.message,
        ):
            for line in labels.wrapped(text, width):
                column.label(text=line)
        download = session.downloads.get(job.job)
        if download is not None:
            compat.progress(column, row_of_job, "percent", download.share, "Fetching the mesh")
        row = layout.row()
        row.scale_y = 1.3
        row.operator("dreamwright.import_mesh", icon="IMPORT")
        if JobState(job.state) in ENDED:
            row.operator("dreamwright.refine_job", text="", icon=compat.icon("GREASEPENCIL", "TEXT"))
        row = layout.row(align=True)
        origin = session.jobs.get(job.parent_job)
        row.label(text=labels.place_text(job, origin.prompt if origin else ""))
        if JobState(job.state) not in ENDED:
            row.operator("dreamwright.raise_priority", text="", icon="TRIA_UP")
            row.operator("dreamwright.lower_priority", text="", icon="TRIA_DOWN")
        row.operator(
            "dreamwright.pin", text="", icon="PINNED" if job.pinned else "UNPINNED", depress=job.pinned
        ).keep = not job.pinned


class DREAMWRIGHT_PT_preview(_InDream, bpy.types.Panel):
    """The live preview, and looking back."""

    bl_idname = "DREAMWRIGHT_PT_preview"
    bl_label = "Preview"

    def draw(self, context: Any) -> None:
        """Open, step, scrub."""
        layout, mine = self.layout, properties.artist()
        layout.operator("dreamwright.show_preview", icon="IMAGE_DATA")
        frame = preview.current_frame()
        if frame is None:
            layout.label(text="No picture yet")
            return
        row = layout.row(align=True)
        row.operator("dreamwright.look", text="", icon="TRIA_LEFT").offset = -1
        row.prop(mine, "scrub", text=f"Step {frame.step}", slider=True)
        row.operator("dreamwright.look", text="", icon="TRIA_RIGHT").offset = 1
        row.operator("dreamwright.look", text="", icon="FF").offset = 0


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
