# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of one job given to another: hard links where the file system has them, on the disk before the call returns."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link of `source`, or a copy where the file system has no links. Raises OSError.

    Only for files that are never written again: a link shares its content. FileNotFoundError means that `source` is
    missing.
    """
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # no hard links, or another file system
        shutil.copyfile(source, target)
        with target.open("rb+") as file:
            os.fsync(file.fileno())
    sync_folder(target.parent)
    sync_folder(target.parent.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power failure, where a folder can be opened. Raises OSError."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
