# SPDX-License-Identifier: GPL-3.0-or-later
"""Without a window: start the local server, then exit Python with its exit handlers."""

from __future__ import annotations

import atexit
import importlib
import json
import os

import bpy

ADDON: str  # given by run_installed.py


def main() -> None:
    """Start it, say which process it is, and leave."""
    chosen = bpy.context.preferences.addons[ADDON].preferences
    chosen.command, chosen.address = os.environ["COMMAND"], "tcp://127.0.0.1:47630"
    chosen.stop_with_blender = os.environ["STOP_WITH_BLENDER"] == "1"
    if bpy.ops.dreamwright.start_server() != {"FINISHED"}:
        raise RuntimeError("the server was not started")
    print("REPORT " + json.dumps(importlib.import_module(f"{ADDON}.local_server")._process.pid), flush=True)
    atexit._run_exitfuncs()
    os._exit(0)


main()
