# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time in a work folder: a second one is refused at its start, with the first one's process id."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ..errors import CheckpointError
from ..runtime.file_lock import file_lock
from .checkpoints import check_work_folder, has_checkpoint

LOCK_FILE, OWNER_FILE = "run.lock", "run.json"


@contextmanager
def locked_work_folder(folder: Path, resume: bool) -> Iterator[None]:
    """Hold a run's work folder, made if need be, while the body runs.

    The kernel releases the lock when the process ends, also by SIGKILL. A folder that was made for the run, or that
    held its checkpoints, is removed afterwards when it is empty. Raises CheckpointError for a folder that cannot be
    written, that another run holds, or that holds a checkpoint although `resume` is False.
    """
    # A killed run leaves its files behind.
    disposable = not folder.exists() or has_checkpoint(folder) or (folder / OWNER_FILE).is_file()
    with contextlib.ExitStack() as stack:
        is_held = False
        stack.callback(lambda: _remove_if_empty(folder) if disposable and is_held else None)  # after the lock's release
        try:
            folder.mkdir(parents=True, exist_ok=True)
            is_held = stack.enter_context(file_lock(folder / LOCK_FILE, give_up=lambda: True, retry_s=0))
            if not is_held:
                raise CheckpointError(
                    f"{folder} is in use by {_owner(folder)}; wait for it or stop it, or choose another folder with "
                    "--work"
                )
            # Before the release: filelock refuses a lock on a file that was unlinked since it was opened.
            stack.callback(_remove_files, folder)
            check_work_folder(folder, resume)
            _write_owner(folder)
        except OSError as error:
            raise CheckpointError(
                f"cannot write to the work folder {folder}: {error.strerror or error}; choose another folder with "
                "--work"
            ) from error
        yield


def _remove_files(folder: Path) -> None:
    """Remove the lock's own files. Windows cannot remove a file that is open."""
    for name in (OWNER_FILE, LOCK_FILE):
        with contextlib.suppress(OSError):
            (folder / name).unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    """Remove the lock's file, where the platform left it, and the folder, unless it holds anything else."""
    try:
        if [path.name for path in folder.iterdir()] in ([LOCK_FILE], []):
            (folder / LOCK_FILE).unlink(missing_ok=True)
            folder.rmdir()
    except OSError:
        return  # another run has begun in it, or it is read-only


def _write_owner(folder: Path) -> None:
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    (folder / OWNER_FILE).write_text(json.dumps(owner) + "\n", encoding="utf-8")


def _owner(folder: Path) -> str:
    """The run that holds the folder, in words; less when it has only just begun."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        owner = json.loads((folder / OWNER_FILE).read_text(encoding="utf-8"))
        host = "" if owner["host"] == socket.gethostname() else f" on {owner['host']}"
        return f"another run (process {int(owner['pid'])}{host}, since {owner['since']})"
    return "another run"
