# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of a server's jobs, keys and logs: created, checked and locked before anything else is opened."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import ConfigError
from .jobs.job_store import DATABASE_FILE

log = logging.getLogger(__name__)

LOCK_FILE = "lock"


def lock_state_folder(folder: Path) -> FileLock:
    """Create the folder if need be, and lock it until the process ends or the lock is released.

    Prompts and meshes are in it, so other users of the machine may not enter it: a new one has mode 0700, and one
    that an earlier version left open gets it. Raises ConfigError for a folder that cannot be created or written, and
    for one that another server uses.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        lock = FileLock(folder / LOCK_FILE)
        lock.acquire(timeout=0)
        _make_private(folder)
    except Timeout as error:
        raise ConfigError(f"another server uses {folder}; stop it, or choose another folder with --state") from error
    except OSError as error:
        raise ConfigError(
            f"cannot use the folder {str(folder)!r}: {error.strerror or error}; choose a folder that you may write to "
            "with --state"
        ) from error
    return lock


def _make_private(folder: Path) -> None:
    """Close a state folder to other users. A folder without jobs may be somebody's own and stays as it is."""
    status = folder.stat()
    is_open = stat.S_IMODE(status.st_mode) & 0o077
    # Windows protects user folders by access control lists, not by these bits.
    if os.name != "posix" or not is_open or status.st_uid != os.getuid() or not (folder / DATABASE_FILE).is_file():
        return
    os.chmod(folder, 0o700)
    log.warning(
        "state folder was open to other users of this machine, and is not any more", extra={"path": str(folder)}
    )
