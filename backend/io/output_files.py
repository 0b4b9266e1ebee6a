# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that a person asked for: whether they can be written is known before the work, and no old one is half replaced."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ..errors import ExportError


def check_writable(path: Path) -> Path:
    """The path, if a file can be written there; touches nothing that exists. Raises ExportError."""
    if path.is_dir():
        raise ExportError(f"cannot write {str(path)!r}: it is a directory; give the name of a file")
    if not path.parent.is_dir():
        raise ExportError(
            f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}; make it first or choose another"
        )
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ExportError(
            f"cannot write {str(path)!r}: the folder {str(path.parent)!r} takes no files "
            f"({error.strerror or error}); choose a folder that you may write to"
        ) from error
    return path


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the target, then rename over it, so that a failure leaves the old file whole.

    Raises ExportError when the disk refuses.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise ExportError(
            f"cannot write {str(path)!r}: {error.strerror or error}; free some space or choose another place"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
