# SPDX-License-Identifier: GPL-3.0-or-later
"""In a network namespace of its own: pair, generate, lose the connection, quit, return, download, import.

What the test process must do meanwhile, it requests by a file in $REQUESTS.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import bpy
from headless import imported_jobs, preferences, session, until

REQUESTS = Path(os.environ["REQUESTS"])  # a folder in which each file is a request
LONG_S = 400.0


def request(name: str, text: str = "") -> None:
    """Send a request to the test process."""
    (REQUESTS / f"{name}.part").write_text(text)
    (REQUESTS / f"{name}.part").replace(REQUESTS / name)


def main() -> None:
    """The whole sequence."""
    # The add-on connects to another machine only with it.
    bpy.context.preferences.system.use_online_access = True
    preferences.address = os.environ["STRING"]
    bpy.ops.dreamwright.connect()
    until(lambda: session.connection_state == "unauthorized", "the refusal", LONG_S)
    report = {
        "reason": session.reason,
        "server": session.keys.server_fingerprint,
        "network": sorted(name for _, name in socket.if_nameindex()),
    }
    bpy.ops.dreamwright.copy_key()
    request("key", session.keys.own_key_text())
    until(lambda: session.is_online and session.capabilities is not None, "the authorization", LONG_S)
    session.submit("a red mushroom", "", os.environ["MODEL"], "draft", 1, json.loads(os.environ["SETTINGS"]))
    until(lambda: bool(session.jobs), "the job")
    job = next(iter(session.jobs))
    session.show_previews_of(job)
    until(lambda: session.jobs[job].step >= 2 and bool(session.previews.get(job)), "a first picture", LONG_S)
    report |= {"job": job, "step at the outage": session.jobs[job].step}
    request("unplug")
    until(lambda: session.connection_state == "lost", "the loss of the connection", LONG_S)
    request("lost")
    started = time.monotonic()
    until(lambda: session.is_online, "the return of the connection", LONG_S)
    report["away s"] = time.monotonic() - started
    step = report["step on return"] = session.jobs[job].step
    pictures = len(session.previews[job])
    until(
        lambda: session.jobs[job].step > step and len(session.previews[job]) > pictures,
        "progress and pictures after the return",
        LONG_S,
    )
    report |= {"state before leaving": session.jobs[job].state, "step before leaving": session.jobs[job].step}
    bpy.ops.dreamwright.disconnect()
    assert not session.is_open
    time.sleep(2.0)
    bpy.ops.dreamwright.connect()
    # A session keeps what it knew of its jobs, so only an answer of the server's counts.
    until(
        lambda: session.is_online and job in session.jobs and session.jobs[job].state == "succeeded",
        "the end of the job",
        LONG_S,
    )
    bpy.ops.dreamwright.import_mesh(job=job)
    until(lambda: imported_jobs() == [job], "the import")
    made = next(one for one in bpy.data.objects if "dreamwright_prompt" in one)
    report |= {
        "vertices": len(made.data.vertices),
        "prompt": made["dreamwright_prompt"],
        "owner": session.jobs[job].owner,
    }
    report |= {"sha": session.jobs[job].mesh_sha256, "notices": [notice.text for notice in session.notices]}
    bpy.ops.dreamwright.disconnect()
    print("REPORT " + json.dumps(report))


main()
