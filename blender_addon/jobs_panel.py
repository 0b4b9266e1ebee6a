# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of jobs in the add-on's tab, what is done with the selected job or group, and its preview. Only draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import bpy

from . import addon_state, compat, job_groups, labels, preview, thumbnails
from .group_operators import picked_job
from .job_operators import PANEL
from .panel_base import SidebarPanel, columns
from .shared.contact_grid import grid_columns
from .shared.job_states import ENDED, JobState
from .shared.messages import JobSummary
from .wording import say

THUMBNAIL_SCALE = 1.0  # in heights of a button; a larger one hangs out of its row in the list


def _draw_picture(layout: Any, jobs: Iterable[str], symbol: str) -> None:
    """Draw the first thumbnail that there is of `jobs`, else an icon."""
    icon = next((icon for icon in map(thumbnails.icon_of, jobs) if icon), 0)
    if icon:
        layout.template_icon(icon_value=icon, scale=THUMBNAIL_SCALE)
    else:
        layout.label(text="", icon=compat.icon(symbol, "DOT"))


class DREAMWRIGHT_UL_jobs(bpy.types.UIList):
    """The jobs of the server, newest first; variations of one prompt are one entry that opens."""

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
        """Draw a row: thumbnail, prompt, and state or progress."""
        session, row = addon_state.session(), layout.row(align=True)
        if not item.job:
            members = session.groups().get(item.group)
            if members is None:
                layout.label(text="Deleted")
            else:
                _draw_group_row(row, item.group, members)
            return
        job = session.jobs.get(item.job)
        if job is None:
            layout.label(text="Deleted")
            return
        symbol, label = labels.STATE_LABELS[job.state]
        name = labels.short(job.prompt, 40)
        if item.group:
            row.label(text="", icon="BLANK1")
            name = say("{number}: seed {seed}", number=job.group_index + 1, seed=job.seed)
        _draw_picture(row, [job.job], symbol)
        row.label(text=name, translate=False)  # the user's words
        if item.group and session.picked.get(item.group) == job.job:
            row.label(text="", icon=compat.icon("SOLO_ON", "CHECKMARK"))
        if job.pinned:
            row.label(text="", icon="PINNED")
        end = row.row()
        end.alignment = "RIGHT"
        is_running = job.state == JobState.RUNNING.value
        end.label(text=f"{round(100 * labels.progress_fraction(job))} %" if is_running else label)

    def filter_items(self, context: Any, data: Any, property: str) -> tuple[list[int], list[int]]:
        """Show the rows whose prompt contains the text of the search field."""
        rows, wanted = getattr(data, property), self.filter_name.lower()
        session = addon_state.session()
        prompts = {group: members[0].prompt for group, members in session.groups().items()}
        prompts |= {name: job.prompt for name, job in session.jobs.items()}
        found = [wanted in prompts.get(row.job or row.group, "").lower() for row in rows]
        return ([self.bitflag_filter_item if hit else 0 for hit in found] if wanted else []), []


def _draw_group_row(row: Any, group: str, members: list[JobSummary]) -> None:
    """Draw the heading of a group: a triangle that opens it, a thumbnail, the prompt, and how many are ready."""
    session = addon_state.session()
    is_open = group in session.open_groups
    toggle = row.operator(
        "dreamwright.toggle_group", text="", icon="TRIA_DOWN" if is_open else "TRIA_RIGHT", emboss=False
    )
    toggle.group = group
    picked = session.picked.get(group, "")
    _draw_picture(row, [picked, *(job.job for job in members)], "RENDERLAYERS")
    row.label(text=labels.short(members[0].prompt, 40), translate=False)
    end = row.row()
    end.alignment = "RIGHT"
    ready = sum(job.state == JobState.SUCCEEDED.value for job in members)
    end.label(text=f"{ready}/{len(members)}")


class DREAMWRIGHT_PT_jobs(SidebarPanel, bpy.types.Panel):
    """The jobs of the server, and the selected one or the selected variations."""

    bl_idname = "DREAMWRIGHT_PT_jobs"
    bl_label = "Jobs"

    def draw(self, context: Any) -> None:
        """Draw the list, pending submissions, and the selected group and job."""
        layout, mine, session = self.layout, addon_state.properties(), addon_state.session()
        layout.context_pointer_set(PANEL, mine)
        row = layout.row()
        row.template_list("DREAMWRIGHT_UL_jobs", "", mine, "job_rows", mine, "job_index", rows=3)
        job, group = addon_state.active_job(), addon_state.active_group()
        members = session.groups().get(group, [])
        is_heading = job is None and bool(members)
        side = row.column(align=True)
        side.operator("dreamwright.cancel_group" if is_heading else "dreamwright.cancel", text="", icon="CANCEL")
        side.operator("dreamwright.pause", text="", icon="PAUSE")
        side.operator("dreamwright.resume", text="", icon="PLAY")
        side.operator("dreamwright.discard_group" if is_heading else "dreamwright.delete_job", text="", icon="TRASH")
        self._draw_pending(layout, session, columns(context, 4))
        if members:
            self._draw_group(layout, mine.job_rows[mine.job_index], group, members)
        if job is not None:
            self._draw_job(layout, mine.job_rows[mine.job_index], session, job, columns(context))

    def _draw_pending(self, layout: Any, session: Any, width: int) -> None:
        counts = Counter(request.group for request in session.pending.values())
        drawn = {""}
        for ticket, request in session.pending.items():
            if request.group not in drawn:
                drawn.add(request.group)
                self._draw_pending_group(layout, session, request, counts[request.group])
            if request.group:
                continue
            uploads, state = session.submissions.uploads, say("Waiting:")
            if session.is_online:
                is_uploading = ticket in uploads.uploads
                state = (
                    say("{percent} % sent:", percent=f"{100 * uploads.share(ticket):.0f}")
                    if is_uploading
                    else say("Sending")
                )
            row = layout.row(align=True)
            row.label(text=say("{state} “{prompt}”", state=state, prompt=labels.short(request.prompt, 30)), icon="TIME")
            row.operator("dreamwright.cancel_pending", text="", icon="X").ticket = ticket
        if session.pending and not session.is_online:
            text = say("Sent as soon as the server answers, even if Blender is closed in between")
            for line in labels.wrapped(text, width):
                layout.label(text=line, icon="BLANK1")

    def _draw_pending_group(self, layout: Any, session: Any, request: Any, count: int) -> None:
        row = layout.row(align=True)
        state = say("Sending") if session.is_online else say("Waiting:")
        row.label(
            text=say(
                "{state} “{prompt}” ({count} variations)",
                state=state,
                prompt=labels.short(request.prompt, 30),
                count=count,
            ),
            icon="TIME",
        )
        row.operator("dreamwright.cancel_pending", text="", icon="X").group = request.group

    def _draw_group(self, layout: Any, job_row: Any, group: str, members: list[JobSummary]) -> None:
        """Draw the progress of variations, their numbers as in the contact sheet, and what can be done with them."""
        column = layout.column(align=True)
        text = job_groups.state_text(members)
        if job_groups.has_ended(members):
            column.label(text=text)
        else:
            compat.progress(column, job_row, "percent", job_groups.progress_fraction(members), text)
        picked, across = picked_job(group, members), grid_columns(len(members))
        row: Any = None
        for place, member in enumerate(members):
            if place % across == 0:
                row = column.row(align=True)
            button = row.operator("dreamwright.pick_variation", text=f"{place + 1}", depress=member == picked)
            button.group, button.number = group, place + 1
        row = layout.row(align=True)
        row.scale_y = 1.3
        row.operator("dreamwright.import_picked", icon="IMPORT")
        row.operator("dreamwright.pick_in_sheet", text="", icon="EYEDROPPER")
        row.operator("dreamwright.show_contact_sheet", text="", icon="IMAGE_DATA")
        row = layout.row(align=True)  # without icons, which leave no room for the text in a narrow sidebar
        row.operator("dreamwright.more_like_this")
        row.operator("dreamwright.discard_others")

    def _draw_job(self, layout: Any, job_row: Any, session: Any, job: Any, width: int) -> None:
        column, has_ended = layout.column(align=True), JobState(job.state) in ENDED
        if not has_ended:
            fraction = labels.progress_fraction(job)
            compat.progress(column, job_row, "percent", fraction, labels.STATE_LABELS[job.state][1])
        progress = labels.progress_text(job)
        texts = [progress] if labels.columns_of(progress) <= width else progress.split(", ")
        for text in (*texts, labels.error_text(job), job.message):
            for line in labels.wrapped(text, width):
                column.label(text=line)
        download = session.downloads.get(job.job)
        if download is not None:
            compat.progress(column, job_row, "percent", download.share, say("Downloading the mesh"))
        row = layout.row()
        row.scale_y = 1.3
        row.operator("dreamwright.import_mesh", icon="IMPORT")
        if has_ended:
            if addon_state.active_group() == "":  # its button is drawn above for variations
                row.operator("dreamwright.more_like_this", text="", icon="DUPLICATE")
            row.operator("dreamwright.finetune_job", text="", icon=compat.icon("GREASEPENCIL", "TEXT"))
        row = layout.row(align=True)
        parent = session.jobs.get(job.parent_job)
        row.label(text=labels.details_text(job, parent.prompt if parent else ""))
        if not has_ended:
            row.operator("dreamwright.raise_priority", text="", icon="TRIA_UP")
            row.operator("dreamwright.lower_priority", text="", icon="TRIA_DOWN")
        pin = row.operator("dreamwright.pin", text="", icon="PINNED" if job.pinned else "UNPINNED", depress=job.pinned)
        pin.keep = not job.pinned


class DREAMWRIGHT_PT_preview(SidebarPanel, bpy.types.Panel):
    """The live preview and its history."""

    bl_idname = "DREAMWRIGHT_PT_preview"
    bl_label = "Preview"

    def draw(self, context: Any) -> None:
        """Draw the buttons and the slider."""
        layout, mine = self.layout, addon_state.properties()
        row = layout.row(align=True)
        row.operator("dreamwright.show_preview", icon="IMAGE_DATA")
        row.prop(mine, "watch_in_view", text="", toggle=True, icon="VIEW3D")
        frame = preview.current_frame()
        if frame is None:
            layout.label(text="No preview yet")
            return
        row = layout.row(align=True)
        row.operator("dreamwright.step_preview", text="", icon="TRIA_LEFT").offset = -1
        row.prop(mine, "preview_position", text=say("Step {step}", step=frame.step), slider=True)
        row.operator("dreamwright.step_preview", text="", icon="TRIA_RIGHT").offset = 1
        row.operator("dreamwright.step_preview", text="", icon="FF").offset = 0
