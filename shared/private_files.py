# SPDX-License-Identifier: GPL-3.0-or-later
"""Small JSON files that only their owner may read, for keys and lists of authorized users; written atomically."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from .atomic import create_atomically, write_atomically


class PrivateFileError(ValueError):
    """A private file is damaged, or others can read it; the message names the file and what to do."""


def read_private(path: Path) -> dict[str, Any] | None:
    """The map in a file; None when it does not exist. Raises PrivateFileError, or OSError when it cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise PrivateFileError(f"{path} is damaged; restore it from a backup, or delete it to start afresh") from error
    # Windows protects user folders by access control lists, not by these bits.
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PrivateFileError(f"{path} can be read by other users of this machine; restrict it with: chmod 600 {path}")
    try:
        read = json.loads(content)
    except ValueError as error:
        raise PrivateFileError(f"{path} is damaged; restore it from a backup, or delete it to start afresh") from error
    if not isinstance(read, dict):
        raise PrivateFileError(f"{path} is damaged; restore it from a backup, or delete it to start afresh")
    return read


def write_private(path: Path, content: dict[str, Any], replace: bool = True) -> bool:
    """Write a map with mode 0600, in a folder with mode 0700. False when the file exists and `replace` is false.

    Raises OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(path.parent, 0o700)  # an existing folder may be open to others
    data = (json.dumps(content, indent=1) + "\n").encode()
    if not replace:
        return create_atomically(path, data, 0o600)
    write_atomically(path, data, 0o600)
    return True
