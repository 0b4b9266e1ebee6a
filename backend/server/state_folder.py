# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of a server's jobs, keys and logs: created, checked and locked before anything else is opened."""

from __future__ import annotations

import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import ConfigError

LOCK_FILE = "lock"


def lock_state_folder(folder: Path) -> FileLock:
    """Create the folder if need be, and lock it until the process ends or the lock is released.

    Raises ConfigError for a folder that cannot be created or written, and for one that another server uses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        lock = FileLock(folder / LOCK_FILE)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(f"another server uses {folder}; stop it, or choose another folder with --state") from error
    except OSError as error:
        raise ConfigError(
            f"cannot use the folder {str(folder)!r}: {error.strerror or error}; choose a folder that you may write to "
            "with --state"
        ) from error
    return lock
