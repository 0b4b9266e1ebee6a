# SPDX-License-Identifier: GPL-3.0-or-later
"""In any Blender: a model of the server is downloaded, stopped, continued, and ready without a restart."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import bpy
from headless import ADDON, connect, session, until

NAME = "sd-1.5"
rows = importlib.import_module(f"{ADDON}.model_rows")
if hasattr(bpy.app, "online_access"):  # of a test's Blender, which is asked nothing else
    bpy.context.preferences.system.use_online_access = True


def download() -> Any:
    """The download as the server last said."""
    return session.models.downloads.get(NAME)


def info() -> Any:
    """What the server says of the model."""
    return next(one for one in session.capabilities.models if one.name == NAME)


def refused(operator: Any, **named: Any) -> str:
    """What an operator that is called in vain reports."""
    try:
        operator(**named)
    except RuntimeError as error:
        return str(error)
    return "nothing"


connect()
until(lambda: len(rows.models().rows) == len(session.capabilities.models), "the rows")
mine = rows.models()
mine.index = [row.model for row in mine.rows].index(NAME)
report: dict[str, Any] = {
    "listed": [NAME in [row.model for row in mine.rows], info().ready, info().can_download],
    "starter": refused(bpy.ops.dreamwright.download_model, model="starter"),
    "unknown": refused(bpy.ops.dreamwright.download_model, model="/etc/passwd"),
    "gated": refused(bpy.ops.dreamwright.download_model, model="sd3-medium"),
}
bpy.ops.dreamwright.download_model()
until(lambda: download() is not None and download().received_bytes > 2**20, "some megabytes")
until(lambda: mine.rows[mine.index].percent > 0, "the progress in the list")
report["running"] = [download().state, 0 < mine.rows[mine.index].percent < 100]
report["second"] = refused(bpy.ops.dreamwright.download_model, model="sdxl")
bpy.ops.dreamwright.stop_model_download()
until(lambda: download().state == "stopped", "the stop")
until(lambda: info().disk_bytes > 2**20, "what the server kept")
report["stopped"] = [info().ready, info().can_download, info().disk_bytes == download().received_bytes]
bpy.ops.dreamwright.download_model(model=NAME)
until(lambda: download().state in ("done", "failed"), "the end", 900)  # its check loads large libraries
report["ended"] = [download().state, download().message]
until(lambda: info().ready, "the new capabilities")
report["ready"] = [info().ready, info().missing, refused(bpy.ops.dreamwright.download_model, model=NAME)]
report["notices"] = [notice.text for notice in session.notices]
print("REPORT " + json.dumps(report))
