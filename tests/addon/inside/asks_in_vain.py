# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender without a window: asks a server that has just stopped answering for a prop, and is killed."""

from __future__ import annotations

import importlib
import json
import os
import signal
from typing import Any

import bpy

ADDON: str  # given by enter.py


def main() -> None:
    """Connect, have the server halted, generate, and end without a goodbye."""
    session: Any = importlib.import_module(f"{ADDON}.live").session()
    pump = importlib.import_module(f"{ADDON}.ticking").pump
    bpy.context.preferences.addons[ADDON].preferences.address = os.environ["SERVER"]
    bpy.ops.dreamwright.connect()
    if not pump(lambda: session.is_online and bool(bpy.context.window_manager.dreamwright.model_name), 30):
        raise TimeoutError(session.reason)
    os.kill(int(os.environ["SERVER_PROCESS"]), signal.SIGSTOP)
    bpy.ops.dreamwright.generate(prompt="a red mushroom")
    pump(timeout_s=0.5)
    print("REPORT " + json.dumps({"waiting": list(session.outbox), "jobs": len(session.jobs)}), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


main()
