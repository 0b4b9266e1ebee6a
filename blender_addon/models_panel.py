# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of the server's models with size, license, memory and state, and the download of one. Only draws."""

from __future__ import annotations

from typing import Any

import bpy

from . import addon_state, compat, labels, model_labels, model_rows
from .model_operators import PANEL
from .panel_base import SidebarPanel, columns, draw_lines
from .shared.capabilities import ModelInfo
from .shared.model_messages import ModelDownload
from .shared.numbers import number_text
from .wording import say

MEDIUM, WIDE = 42, 64  # columns from which a row has room for memory and state, and for the license
NAME_SHARE = 0.62  # of a row's width, for the name


class DREAMWRIGHT_UL_models(bpy.types.UIList):
    """The models of the server."""

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
        """Draw a row: state, name, license where there is room, size, memory."""
        session = addon_state.session()
        info = labels.model_info(session.capabilities, item.model)
        if info is None:
            layout.label(text=item.model, translate=False)
            return
        symbol, label = model_labels.row_state(info, session.models.downloads.get(item.model))
        width, memory = columns(context), f"{number_text(info.memory_gb)} GB" if info.memory_gb else ""
        parts = layout.split(factor=NAME_SHARE if width < WIDE else 0.3)
        parts.label(text=info.name, translate=False, icon=compat.icon(symbol, "DOT"))
        row, shown = parts.row(align=True), [model_labels.shown_size(info), memory, label]
        if width >= WIDE:
            shown.insert(0, labels.short(info.license, 24))
        elif width < MEDIUM:  # the icon and the selected model's lines below say the rest
            is_active = model_labels.is_active(session.models.downloads.get(item.model))
            shown = [label if is_active else shown[0]]
        for text in shown:
            row.label(text=text, translate=False)

    def filter_items(self, context: Any, data: Any, property: str) -> tuple[list[int], list[int]]:
        """Show the rows whose name or license contains the text of the search field."""
        rows, wanted = getattr(data, property), self.filter_name.lower()
        capabilities = addon_state.session().capabilities
        known = (
            {info.name: f"{info.name} {info.license}".lower() for info in capabilities.models} if capabilities else {}
        )
        found = [wanted in known.get(row.model, "") for row in rows]
        return ([self.bitflag_filter_item if hit else 0 for hit in found] if wanted else []), []


class DREAMWRIGHT_PT_models(SidebarPanel, bpy.types.Panel):
    """The models of the server, and the selected one."""

    bl_idname = "DREAMWRIGHT_PT_models"
    bl_parent_id = "DREAMWRIGHT_PT_server"
    bl_label = "Models"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Any) -> None:
        """Draw the list, the selected model, and its download."""
        layout, session, mine = self.layout, addon_state.session(), model_rows.models()
        if session.capabilities is None:
            layout.label(text="Connect to a server to see its models", icon="INFO")
            return
        layout.context_pointer_set(PANEL, mine)
        layout.template_list("DREAMWRIGHT_UL_models", "", mine, "rows", mine, "index", rows=4)
        info, row = model_rows.active_model(), model_rows.active_row()
        if info is not None:
            self._draw_model(layout, info, row, session.models.downloads.get(info.name), columns(context))

    def _draw_model(self, layout: Any, info: ModelInfo, row: Any, download: ModelDownload | None, width: int) -> None:
        column = layout.column(align=True)
        memory, state = model_labels.memory_details(info), say(model_labels.state_of(info, download)[1])
        summary = info.summary[:1].upper() + info.summary[1:]
        for text in (f"{info.name}: {state}", summary, model_labels.size_details(info), memory):
            for line in labels.wrapped(text, width):
                column.label(text=line, translate=False)
        license_row = column.row(align=True)
        lines = labels.wrapped(say("License: {license}", license=info.license), width - 4)
        license_row.label(text=lines[0] if lines else "", translate=False)
        license_row.operator("dreamwright.open_license", text="", icon="URL")
        for line in lines[1:]:
            column.label(text=line, translate=False)
        if download is not None and download.is_active:
            self._draw_progress(layout, row, download, width)
            return
        self._draw_faults(layout, info, download, width - 4)
        is_begun = not info.ready and bool(info.disk_bytes)
        buttons = layout.row()
        buttons.scale_y = 1.3
        buttons.operator(
            "dreamwright.download_model", text="Continue Download" if is_begun else "Download", icon="IMPORT"
        )

    def _draw_progress(self, layout: Any, row: Any, download: ModelDownload, width: int) -> None:
        column, text = layout.column(align=True), model_labels.progress_text(download)
        line = column.row(align=True)
        label = say(model_labels.ACTIVE[download.state][1])
        compat.progress(line, row, "percent", model_labels.fraction(download), label)
        line.operator("dreamwright.stop_model_download", text="", icon="X")
        texts = [text] if len(text) <= width else text.split(", ")
        for part in (*texts, download.file or download.message):
            for shown in labels.wrapped(part, width):
                column.label(text=shown, translate=False)

    def _draw_faults(self, layout: Any, info: ModelInfo, download: ModelDownload | None, width: int) -> None:
        """Draw why the last download failed, and why the model cannot be downloaded."""
        if info.ready:
            return
        if download is not None and download.state == "failed":
            draw_lines(layout.column(align=True), download.message[:1].upper() + download.message[1:], width, "ERROR")
        if not info.can_download:
            fault = info.download_fault or info.missing
            draw_lines(layout.column(align=True), fault[:1].upper() + fault[1:], width, "INFO")


register, unregister = bpy.utils.register_classes_factory((DREAMWRIGHT_UL_models, DREAMWRIGHT_PT_models))
