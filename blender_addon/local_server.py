# SPDX-License-Identifier: GPL-3.0-or-later
"""The server on this machine: started and stopped here, with its log in the user folder. It may outlive Blender."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import bpy

from . import addon_state
from .labels import is_local
from .preferences import preferences, user_folder

COMMAND = "dreamwright"
LOG_TEXT = "Dreamwright Server Log"
LOG_TAIL = 200_000  # bytes of the log that are shown

_process: subprocess.Popen[bytes] | None = None  # of this session


def command_path() -> str:
    """The command that runs the server; "" when there is none."""
    chosen = bpy.path.abspath(preferences().command.strip())
    return shutil.which(chosen or COMMAND) or ""


def start_fault() -> str:
    """Why the local server cannot be started, in a sentence; "" when it can."""
    address = preferences().address
    if not is_local(address):
        return f"{address} is another machine; start its server there with: dreamwright serve"
    if is_running():
        return "The local server is running already"
    return command_fault()


def command_fault() -> str:
    """Why there is no command to start, in a sentence; "" when there is one."""
    if command_path():
        return ""
    chosen = preferences().command.strip()
    where = f"The command {chosen} was not found" if chosen else "The command dreamwright is not on the search path"
    return f"{where}; install the backend, or choose the command in the add-on's preferences"


def log_path() -> Path:
    """The log of the server that was started last. Raises OSError."""
    return user_folder() / "server.log"


def _record_path() -> Path:
    return user_folder() / "server.json"


def start() -> None:
    """Start the server, detached from this Blender. Raises OSError when it cannot be run."""
    global _process
    arguments = [command_path(), "serve", "--address", preferences().address]
    # A server belongs to no terminal and no Blender: neither Ctrl-C nor a crash of them may end its jobs.
    if sys.platform == "win32":
        apart: dict[str, Any] = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    else:
        apart = {"start_new_session": True}
    # Blender's own Python must not leak into another Python's start.
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    with open(log_path(), "wb") as log:
        _process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=clean,
            cwd=user_folder(),
            **apart,
        )
    _record_path().write_text(json.dumps({"process": _process.pid, "address": preferences().address}), encoding="utf-8")


def _recorded() -> int:
    """The process that an earlier Blender started and that still runs; 0 for none."""
    try:
        number = int(json.loads(_record_path().read_text(encoding="utf-8"))["process"])
        shown = subprocess.run(_who_is(number), capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired):
        return 0
    # Numbers of processes are used again: believe it only when it looks like ours.
    return number if COMMAND in shown.lower() else 0


def _who_is(number: int) -> list[str]:
    if sys.platform == "win32":
        return ["tasklist", "/FO", "CSV", "/NH", "/FI", f"PID eq {number}"]
    return ["ps", "-ww", "-o", "command=", "-p", str(number)]


def is_running() -> bool:
    """Whether the server that this Blender started runs."""
    return _process is not None and _process.poll() is None


def stop() -> bool:
    """Ask the local server to end, whoever started it; its jobs go on from their checkpoints next time. False: none."""
    global _process
    number = _process.pid if is_running() and _process else _recorded()
    if number and _process is not None and _process.pid == number:
        _process.terminate()
    elif number:
        os.kill(number, signal.SIGTERM)
    _record_path().unlink(missing_ok=True)
    return bool(number)


def watch() -> None:
    """Tell when the server ended by itself, and why where its log says so."""
    global _process
    if _process is None or _process.poll() is None:
        return
    code, _process = _process.returncode, None
    if code in (0, -signal.SIGTERM):
        addon_state.session().say("The local server has stopped", is_error=False)
    else:
        last = [line for line in read_log().splitlines() if line.strip()][-1:]
        why = last[0].strip() if last else f"it ended with status {code}"
        addon_state.session().say(f"The local server could not go on: {why}", fix="dreamwright.show_log")


def read_log() -> str:
    """The end of the log; a sentence when there is none."""
    try:
        with open(log_path(), "rb") as log:
            log.seek(max(0, log_path().stat().st_size - LOG_TAIL))
            return log.read().decode("utf-8", "replace")
    except OSError:
        return "The local server has not been started from this Blender yet\n"


def _at_exit() -> None:
    if _stop_at_exit and is_running() and _process:
        _process.terminate()


_stop_at_exit = False


def note_preferences() -> None:
    """Remember what to do at exit, when Blender's preferences are gone already."""
    global _stop_at_exit
    _stop_at_exit = preferences().stop_with_blender


def register() -> None:
    """End the server with Blender where that is wanted."""
    atexit.register(_at_exit)


def unregister() -> None:
    """Disabling the add-on leaves the server alone unless it is to stop with Blender."""
    global _process
    note_preferences()
    _at_exit()
    atexit.unregister(_at_exit)
    if _process is not None and _process.poll() is None and not _stop_at_exit:
        _process.returncode = 0  # it lives on by intention: keep Python from warning about it
    _process = None
