# SPDX-License-Identifier: GPL-3.0-or-later
"""Child processes of this Python that read their request from stdin and end when their parent does.

The request goes through a pipe because other users of a machine can read arguments and environment variables. The
parent keeps its end of the pipe open: a child that reads end of file has lost its parent.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
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
    module: str, request: Mapping[str, Any], output: IO[bytes], new_session: bool = True
) -> subprocess.Popen[bytes]:
    """Run `python -m module` with `request` as the JSON in the first line of its stdin; `output` takes its log.

    The working directory is not on the child's import path. Raises OSError when the process cannot be started; a child
    that ends before it reads the request raises nothing and is found by its exit status.
    """
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
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
