# SPDX-License-Identifier: GPL-3.0-or-later
"""Output files that a user asked for: checked before the run, written as a whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from dreamwright.shared.atomic import write_atomically

from ..errors import ExportError

NAME_BYTES = 255  # limit of ext4, XFS, Btrfs, APFS and NTFS, where the file system does not name its own


def check_writable(path: Path) -> Path:
    """Return the path if a file can be written there; creates and changes nothing. Call it before a long run.

    A symlink stands for its target. Raises ExportError for a name that is too long, a directory, a missing or read-only
    folder and a read-only or special file.
    """
    target = _resolve(path)
    if target.is_dir():
        raise ExportError(f"cannot write {str(path)!r}: it is a directory; give the name of a file")
    _check_folder(path, target.parent)
    if target.exists():
        if not target.is_file():
            raise ExportError(f"cannot write {str(path)!r}: it is not a regular file; give another name")
        if not os.access(target, os.W_OK):
            raise ExportError(f"cannot write {str(path)!r}: the file is read-only; allow writing or give another name")
    return path


def check_folder_writable(path: Path) -> Path:
    """Return the path if files can be written into that folder; it need not exist yet and is not created.

    Raises ExportError for a name that is too long, an existing file, and a read-only folder or nearest parent.
    """
    target = _resolve(path)
    if not target.is_dir() and os.path.lexists(target):
        raise ExportError(f"cannot use {str(path)!r} as a folder: it is a file; give the name of a folder")
    while not target.is_dir():
        if os.path.lexists(target):
            raise ExportError(f"cannot make the folder {str(path)!r}: {str(target)!r} is a file; choose another place")
        target = target.parent
        _check_name(path, target)
    _try_folder(path, target)
    return path


def write_output(path: Path, data: bytes) -> None:
    """Write atomically (`shared.atomic`): on failure the old file is whole. Raises ExportError."""
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ExportError(
            f"cannot write {str(path)!r}: {error.strerror or error}; free some space or choose another place"
        ) from error


def _resolve(path: Path) -> Path:
    """The file or folder that the path stands for. Raises ExportError where the system cannot look for it."""
    try:
        target = Path(os.path.realpath(path))
        _check_name(path, target)
        os.lstat(target)
    except (FileNotFoundError, NotADirectoryError):
        return target
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _refusal(path, error) from error
    if os.path.islink(target):
        raise ExportError(f"cannot write {str(path)!r}: its symbolic links form a loop; give another name")
    return target


def _check_name(given: Path, path: Path) -> None:
    """Raise ExportError for a name component beyond the file system's limit."""
    folder, name = path.parent, path.name
    try:
        limit = os.pathconf(folder, "PC_NAME_MAX") if folder.is_dir() else NAME_BYTES
    except (OSError, ValueError, AttributeError):  # AttributeError: Windows has no pathconf
        limit = NAME_BYTES
    length = len(os.fsencode(name))
    if length > limit:
        raise ExportError(
            f"cannot write {str(given)!r}: the name {name!r} has {length} bytes; allowed are {limit}; "
            "give a shorter name"
        )


def _check_folder(path: Path, folder: Path) -> None:
    if not folder.is_dir():
        raise ExportError(
            f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}; make it first or choose another"
        )
    _try_folder(path, folder)


def _try_folder(path: Path, folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ExportError(
            f"cannot write {str(path)!r}: the folder {str(folder)!r} takes no files "
            f"({error.strerror or error}); choose a folder that you may write to"
        ) from error


def _refusal(path: Path, error: OSError | ValueError) -> ExportError:
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return ExportError(f"cannot write {str(path)!r}: the path is too long for the file system; give a shorter one")
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return ExportError(f"cannot write {str(path)!r}: {reason}; give another name")
