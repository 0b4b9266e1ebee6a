# SPDX-License-Identifier: GPL-3.0-or-later
"""Without a window: submit to a server that has just stopped answering, and be killed."""

from __future__ import annotations

import json
import os
import signal

import bpy
from headless import connect, poll, session


def main() -> None:
    """Connect, have the server halted, generate, and end without a goodbye."""
    connect()
    os.kill(int(os.environ["SERVER_PROCESS"]), signal.SIGSTOP)
    bpy.ops.dreamwright.generate(prompt="a red mushroom")
    poll(timeout_s=0.5)
    print("REPORT " + json.dumps({"waiting": list(session.pending), "jobs": len(session.jobs)}), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


main()
