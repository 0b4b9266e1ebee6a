# SPDX-License-Identifier: GPL-3.0-or-later
"""A client machine in its own network: python tests/testing/second_machine.py ADDONS PACKAGE FOLDER PHASE
ADDRESS.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dreamwright.shared.client import Client


def report(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def until(session: Any, condition: Callable[[], Any], received: list[Any] | None = None, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{session.connection_state}: {session.reason}; {session.jobs}; {list(session.notices)}")
        events = session.tick()
        if received is not None:
            received += events
        time.sleep(0.01)


def main() -> None:
    addons, package, folder, phase, address = sys.argv[1:]
    sys.path.insert(0, addons)
    session = importlib.import_module(f"{package}.session").Session(Path(folder))
    if phase == "unauthorized":
        client = Client(address)
        client.connect()
        end = time.monotonic() + 20
        while client.state.value != "unauthorized" and time.monotonic() < end:
            client.tick()
            time.sleep(0.01)
        report(link=client.state.value, reason=client.reason)
        client.close()
        return
    session.connect(address)
    if phase == "pair":
        until(session, lambda: session.connection_state == "unauthorized")
        report(reason=session.reason, key=session.keys.own_key_text(), server=session.keys.server_fingerprint)
    until(session, lambda: session.is_online and session.capabilities is not None)
    report(online=session.reason)
    received: list[Any] = []
    if phase == "pair":
        session.submit("a red mushroom", "", "starter", "draft", 1, {})
        until(session, lambda: bool(session.jobs) and not session.pending)
        report(job=next(iter(session.jobs)), jobs=len(session.jobs))
        until(session, lambda: session.connection_state == "lost")
        report(link="lost")
        until(session, lambda: session.is_online)
        report(link="online")
    else:
        until(session, lambda: any(job.state == "succeeded" for job in session.jobs.values()))
        job = next(iter(session.jobs))
        session.download_mesh(job)
        until(session, lambda: any(type(event).__name__ == "MeshDownloaded" for event in received), received)
        mesh = next(event.mesh for event in received if type(event).__name__ == "MeshDownloaded")
        report(
            job=job,
            vertices=len(mesh.vertices),
            sha=hashlib.sha256(mesh.vertices.tobytes()).hexdigest(),
            owner=session.jobs[job].owner,
        )
    session.disconnect()


if __name__ == "__main__":
    main()
