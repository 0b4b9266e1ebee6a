# SPDX-License-Identifier: GPL-3.0-or-later
"""Write files atomically: a reader, or a crash, finds either the old file or the new one, never a part."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], data: bytes, mode: int | None = None) -> None:
    """Write `data` to `path`: temporary file in the same folder, fsync, rename over the target.

    A symlink stays, and the file that it points to is replaced. An existing file keeps its permission bits unless
    `mode` is given; a new one gets `mode`, or what the umask allows. On failure the old file is untouched and no
    temporary file is left. Raises OSError.
    """
    with atomic_path(path, mode) as temporary:
        temporary.write_bytes(data)


@contextmanager
def atomic_path(path: str | os.PathLike[str], mode: int | None = None) -> Iterator[Path]:
    """Yield a temporary path, with the suffix of `path`, that replaces `path` when the block ends without an exception.

    For writers that need a path or a stream; the rules are those of `write_atomically`.
    """
    target = Path(os.path.realpath(path))
    mode = _mode_of(target) if mode is None else mode
    temporary = _create_temporary(target, mode)
    try:
        yield temporary
        _finish(temporary, mode)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def create_atomically(path: str | os.PathLike[str], data: bytes, mode: int | None = None) -> bool:
    """Like `write_atomically`, but never replaces: False when `path` exists. Of two concurrent calls one wins."""
    target = Path(path)
    temporary = _create_temporary(target, mode)
    try:
        temporary.write_bytes(data)
        _finish(temporary, mode)
        os.link(temporary, target)  # unlike a rename, a hard link fails where the name is taken
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _mode_of(target: Path) -> int | None:
    """Permission bits of an existing regular file; None when there is none. Raises OSError for anything else there."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(target))
    return stat.S_IMODE(status.st_mode)


def _create_temporary(target: Path, mode: int | None) -> Path:
    # The length of the name does not depend on the target's, which may use all 255 bytes that a file system allows.
    temporary = target.with_name(f".{secrets.token_hex(6)}.tmp{target.suffix[:12]}")
    # With a known mode nobody else can open the file before it has that mode; else the umask decides.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else 0o600))
    return temporary


def _finish(temporary: Path, mode: int | None) -> None:
    """Flush to the disk, then set the permission bits, which may forbid writing."""
    handle = os.open(temporary, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    if mode is not None:
        os.chmod(temporary, mode)
