# SPDX-License-Identifier: GPL-3.0-or-later
"""Small JSON files that only their owner may read: keys, and who may use them. Replaced whole, never half-written."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from .atomic import create_atomically, write_atomically


class PrivateFileError(ValueError):
    """A private file that is damaged, or that others could read; says which, and what to do."""


def read_private(path: Path) -> dict[str, Any] | None:
    """The map in a file; None when there is no file. Raises PrivateFileError, or OSError when it cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise PrivateFileError(f"{path} is damaged; bring it back from a copy, or delete it to start anew") from error
    # Windows keeps a user's folder from other users by other means than these bits.
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PrivateFileError(f"{path} can be read by other users of this machine; close it with: chmod 600 {path}")
    try:
        read = json.loads(content)
    except ValueError as error:
        raise PrivateFileError(f"{path} is damaged; bring it back from a copy, or delete it to start anew") from error
    if not isinstance(read, dict):
        raise PrivateFileError(f"{path} is damaged; bring it back from a copy, or delete it to start anew")
    return read


def write_private(path: Path, content: dict[str, Any], replace: bool = True) -> bool:
    """Write a map, readable by its owner alone from its first byte on; False when it is there and not to be replaced.

    The folder is closed to others as well. Raises OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(path.parent, 0o700)  # an existing folder may be open to others
    data = (json.dumps(content, indent=1) + "\n").encode()
    if not replace:
        return create_atomically(path, data, 0o600)
    write_atomically(path, data, 0o600)
    return True
