# SPDX-License-Identifier: GPL-3.0-or-later
"""Child processes of this Python that read their request from stdin and end when their parent does.

The request goes through a pipe because other users of a machine can read arguments and environment variables. The
parent keeps its end of the pipe open: a child that reads end of file has lost its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import IO, Any

# Ctrl-C in a terminal then reaches the parent only, which decides what becomes of its children. A session rather than
# a process group: a group whose parent ends receives SIGHUP when one of its processes is stopped.
NEW_SESSION: Mapping[str, Any] = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if sys.platform == "win32"
    else {"start_new_session": True}
)


def start_child(
    module: str,
    request: Mapping[str, Any],
    output: IO[bytes] | int,
    new_session: bool = True,
    environment: Mapping[str, str] | None = None,
    pass_handles: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Run `python -m module` with `request` as the JSON in the first line of its stdin; `output` takes its log.

    `output` may be subprocess.PIPE; `environment` None: this process's; `pass_handles`: file descriptors that the child
    inherits under their numbers, on Linux and macOS. The working directory is not on the child's
    import path. Raises OSError when the process cannot be started; a child that ends before it reads the request raises
    nothing and is found by its exit status.
    """
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        pass_fds=pass_handles,
        **(NEW_SESSION if new_session else {}),
    )
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
    return child


def close_stdin(child: subprocess.Popen[bytes]) -> None:
    """Close the parent's end of a child's stdin, also when buffered bytes can no longer be written."""
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()


def end_with_parent() -> None:
    """In a child that has read its request: exit with status 1 as soon as the parent is gone, whatever runs then."""
    threading.Thread(target=_wait_for_end_of_stdin, daemon=True).start()


def _wait_for_end_of_stdin() -> None:
    # Not sys.stdin: a daemon thread that holds its lock would disturb the interpreter's shutdown.
    while os.read(0, 4096):
        continue
    os._exit(1)
