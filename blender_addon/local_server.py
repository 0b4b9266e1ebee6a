# SPDX-License-Identifier: GPL-3.0-or-later
"""The server process on this machine: start, stop, log. It may outlive Blender."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from . import addon_state, checks
from .addresses import is_local
from .shared.atomic import write_atomically
from .wording import say

LOG_TEXT = "Dreamwright Server Log"
LOG_TAIL_BYTES = 200_000  # of the log that is shown

_process: subprocess.Popen[bytes] | None = None  # started by this Blender
_stop_at_exit = False


def start_fault() -> str:
    """Why the local server cannot be started, as a sentence; "" when it can."""
    address = addon_state.preferences().address
    if not is_local(address):
        return say("{address} is another machine; start its server there with: dreamwright serve", address=address)
    if is_running():
        return say("The local server is already running")
    return checks.command_fault()


def log_path() -> Path:
    """The log of the server that was started last. Raises OSError."""
    return addon_state.user_folder() / "server.log"


def _record_path() -> Path:
    return addon_state.user_folder() / "server.json"


def start() -> None:
    """Start the server as an independent process. Raises OSError when it cannot be run."""
    global _process
    address, folder = addon_state.preferences().address, addon_state.user_folder()
    # Without Blender's own Python, which another Python must not use.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    with open(log_path(), "wb") as log:
        # In a session or process group of its own: Ctrl-C or a crash of Blender must not end its jobs.
        _process = subprocess.Popen(
            [checks.command_path(), "serve", "--address", address],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=sys.platform != "win32",
            creationflags=_creation_flags(),
        )
    write_atomically(_record_path(), json.dumps({"process": _process.pid, "address": address}).encode())


def _creation_flags() -> int:
    if sys.platform == "win32":
        return subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    return 0


def _recorded_process() -> int:
    """Id of the process that an earlier Blender started and that still runs; 0 for none."""
    try:
        number = int(json.loads(_record_path().read_text(encoding="utf-8"))["process"])
        found = subprocess.run(_query_command(number), capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired):
        return 0
    # Process ids are reused: accept it only when it is a dreamwright command.
    return number if checks.COMMAND in found.lower() else 0


def _query_command(number: int) -> list[str]:
    if sys.platform == "win32":
        return ["tasklist", "/FO", "CSV", "/NH", "/FI", f"PID eq {number}"]
    return ["ps", "-ww", "-o", "command=", "-p", str(number)]


def is_running() -> bool:
    """Whether the server that this Blender started is running."""
    return _process is not None and _process.poll() is None


def stop() -> bool:
    """Ask the local server to stop, also one of an earlier Blender. False when there is none. Raises OSError."""
    number = _process.pid if is_running() and _process else _recorded_process()
    if number and _process is not None and _process.pid == number:
        _process.terminate()
    elif number:
        os.kill(number, signal.SIGTERM)
    _record_path().unlink(missing_ok=True)
    return bool(number)


def check_exit() -> None:
    """Notify the user when the server process has ended, with the last line of its log after a failure."""
    global _process
    if _process is None or _process.poll() is None:
        return
    code, _process = _process.returncode, None
    if code in (0, -signal.SIGTERM):
        addon_state.session().notify(say("The local server has stopped"), is_error=False)
    else:
        last = [line for line in read_log().splitlines() if line.strip()][-1:]
        why = last[0].strip() if last else say("exit status {code}", code=code)
        addon_state.session().notify(say("The local server has failed: {why}", why=why), fix="dreamwright.show_log")


def read_log() -> str:
    """The end of the log; a sentence when there is none."""
    try:
        with open(log_path(), "rb") as log:
            log.seek(max(0, log_path().stat().st_size - LOG_TAIL_BYTES))
            return log.read().decode("utf-8", "replace")
    except OSError:
        return say("The local server has not been started from this Blender yet") + "\n"


def _at_exit() -> None:
    if _stop_at_exit and is_running() and _process:
        _process.terminate()


def note_preferences() -> None:
    """Remember the choice for the exit of Blender, when its preferences are no longer available."""
    global _stop_at_exit
    _stop_at_exit = addon_state.preferences().stop_with_blender


def register() -> None:
    """Stop the server together with Blender where the preferences say so."""
    atexit.register(_at_exit)


def unregister() -> None:
    """Leave the server running, unless the preferences say otherwise."""
    global _process
    note_preferences()
    _at_exit()
    atexit.unregister(_at_exit)
    if _process is not None and _process.poll() is None and not _stop_at_exit:
        _process.returncode = 0  # it keeps running on purpose: suppresses Python's ResourceWarning
    _process = None
