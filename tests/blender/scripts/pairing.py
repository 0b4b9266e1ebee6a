# SPDX-License-Identifier: GPL-3.0-or-later
"""Paste a connection string, be refused, be authorized, generate, import, have the key revoked."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import bpy
from headless import imported_jobs, preferences, session, until


def keys(*arguments: str) -> None:
    """What who runs the server types there."""
    command = [
        os.environ["PYTHON"],
        "-m",
        "dreamwright.backend.cli.main",
        "keys",
        *arguments,
        "--state",
        os.environ["STATE"],
    ]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run(command, check=True, env=clean, cwd=os.environ["ROOT"])


def main() -> None:
    """The whole sequence."""
    preferences.address = os.environ["STRING"]
    report = {
        "address": preferences.address,
        "server": session.keys.server_fingerprint,
        "string": bpy.ops.dreamwright.forget_server_key.poll(),
    }
    bpy.ops.dreamwright.connect()
    until(lambda: session.connection_state == "unauthorized", "the refusal")
    report |= {"reason": session.reason, "own": session.keys.own_fingerprint}
    bpy.ops.dreamwright.copy_key()
    keys("allow", "anna", session.keys.own_key_text())
    began = time.monotonic()
    until(lambda: session.is_online and session.capabilities is not None, "being let in")
    report["let in after"] = time.monotonic() - began
    panel = bpy.context.window_manager.dreamwright
    until(lambda: bool(panel.model_name), "the models")
    bpy.ops.dreamwright.generate(prompt="a red mushroom")
    until(lambda: any(job.state == "succeeded" for job in session.jobs.values()), "the prop")
    job = next(iter(session.jobs))
    bpy.ops.dreamwright.import_mesh(job=job)
    until(lambda: imported_jobs() == [job], "the import")
    made = next(one for one in bpy.data.objects if "dreamwright_prompt" in one)
    report |= {
        "prop": made["dreamwright_prompt"],
        "server of the prop": made["dreamwright_server"],
        "owner": session.jobs[job].owner,
    }
    bpy.ops.wm.save_as_mainfile(filepath=os.environ["BLEND"])
    bpy.ops.wm.save_userpref()
    keys("revoke", "anna")
    until(lambda: session.connection_state == "unauthorized", "being shut out")
    report["shut out"] = session.reason
    folder = Path(session.folder)
    report["files"] = {path.name: oct(path.stat().st_mode & 0o777) for path in sorted((folder / "keys").iterdir())}
    report["folder"] = oct((folder / "keys").stat().st_mode & 0o777)
    report["own file"] = str(folder / "keys" / "own.json")
    bpy.ops.dreamwright.disconnect()
    print("REPORT " + json.dumps(report))


main()
