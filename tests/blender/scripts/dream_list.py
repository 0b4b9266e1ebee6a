# SPDX-License-Identifier: GPL-3.0-or-later
"""Without a window: a list in a text becomes assets of the file."""

from __future__ import annotations

import importlib
import json
from typing import Any

import bpy
from headless import ADDON, connect, session, until

TABLE = "prompt,name,tags,catalog\na red mushroom,Toadstool,plant,Garden\na blue chair,,,\n"


def main() -> None:
    """Start the list, and again when it is done."""
    connect()
    bpy.data.texts.new("props").write(TABLE)
    active: Any = importlib.import_module(f"{ADDON}.active_list").active
    for _ in range(2):
        bpy.ops.dreamwright.dream_list(text="props")
        until(lambda: active().is_done, "the list")
    found = {one.name: one for one in bpy.data.objects if one.asset_data is not None}
    report = {
        "assets": {name: sorted(tag.name for tag in one.asset_data.tags) for name, one in sorted(found.items())},
        "catalog_id": found["Toadstool"].asset_data.catalog_id,
        "percent": round(bpy.context.window_manager.dreamwright_list_percent, 3),
        "jobs": len(session.jobs),
    }
    print("REPORT " + json.dumps(report), flush=True)


main()
