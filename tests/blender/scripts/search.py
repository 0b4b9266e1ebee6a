# SPDX-License-Identifier: GPL-3.0-or-later
"""In a network namespace of its own: find a server, choose it, paste its connection string, connect."""

from __future__ import annotations

import importlib
import json
import os
import time
from typing import Any

import bpy
from headless import preferences, session, until

ADDON: str  # given by run_installed.py

operators: Any = importlib.import_module(f"{ADDON}.search_operators")
checks: Any = importlib.import_module(f"{ADDON}.checks")


def refusal(name: str) -> str:
    """Why an operator cannot be called."""
    try:
        getattr(bpy.ops.dreamwright, name)()
    except RuntimeError as error:
        return str(error)
    return ""


def search() -> list[Any]:
    """Press *Find Servers* and wait for its end, as the timer does."""
    bpy.ops.dreamwright.find_servers()
    while operators.follow() is not None:
        time.sleep(0.05)
    return [[one.fingerprint, one.address] for one in operators._search.found]


def main() -> None:
    """The whole sequence."""
    bpy.context.preferences.system.use_online_access = False
    report: dict[str, Any] = {"offline": refusal("find_servers")}
    bpy.context.preferences.system.use_online_access = True
    report["found"] = search()
    for fingerprint, address in report["found"]:
        bpy.ops.dreamwright.use_server(address=address, fingerprint=fingerprint)
    report["address"] = preferences.address
    report["before the string"] = checks.connection_fault()
    bpy.ops.dreamwright.paste_connection(text=os.environ["STRING"])
    report["after the string"] = checks.connection_fault()
    search()
    report["known"] = sorted(operators._search.known)
    bpy.ops.dreamwright.connect()
    until(lambda: session.connection_state == "unauthorized", "the refusal", 60)
    report["reason"] = session.reason
    report["while connected"] = refusal("find_servers")
    bpy.ops.dreamwright.disconnect()
    session.notices.clear()
    operators._search.start = lambda known: None  # as where nobody answers
    operators._search.found = ()
    search()
    report["alone"] = session.notices[-1].text
    print("REPORT " + json.dumps(report))


main()
