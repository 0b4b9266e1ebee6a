# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender without a window: starts a job, and is killed while it runs."""

from __future__ import annotations

import json
import os
import signal

import bpy
from headless import connect, session, until


def main() -> None:
    """Generate, see the job run, and end without a goodbye."""
    connect()
    bpy.ops.dreamwright.generate(prompt="a red mushroom")
    until(
        lambda: any(job.step >= 3 and session.previews.get(job.job) for job in session.jobs.values()), "a running job"
    )
    job = next(iter(session.jobs.values()))
    seen = {"job": job.job, "state": job.state, "step": job.step, "client": session._client.client_id}
    print("REPORT " + json.dumps(seen), flush=True)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


main()
