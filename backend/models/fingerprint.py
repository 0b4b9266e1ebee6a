# SPDX-License-Identifier: GPL-3.0-or-later
"""The identity of a model: a digest of the contents of its files, independent of the folder's name and place."""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path

from dreamwright.shared.atomic import write_atomically

from ..errors import ModelError
from .model_files import loaded_files
from .user_folders import cache_root

log = logging.getLogger(__name__)
BLOCK = 2**20  # bytes read at a time
SETTLED_S = 2.0  # a file that changed within this time may change again within one tick of the file system's clock
CACHED_FROM = 2**20  # bytes; hashing a smaller file costs less than a look-up is worth


def model_fingerprint(folder: Path) -> str:
    """SHA-256 (64 hex digits) over the sorted paths and content hashes of all files that the model is loaded from.

    Copies of a model have equal fingerprints; one changed byte of a weight, a tokenizer or a configuration gives
    another. Licenses, previews and download records do not count. Weights are read once: `file_digest` caches.
    Raises ModelError for a folder that holds no supported model or whose files cannot be read.
    """
    digest = hashlib.sha256()
    for name in loaded_files(folder):
        try:
            digest.update(f"{name}\0{file_digest(folder / name)}\n".encode())
        except OSError as error:
            raise ModelError(
                f"cannot read {folder / name} ({error.strerror or error}); check its permissions, "
                "or download the model again"
            ) from error
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content in hex.

    Digests of large files are cached by (resolved path, size, mtime, ctime, inode): a file that was replaced or written
    since has another key, even if its modification time was set back. Raises OSError.
    """
    status = path.stat()
    if status.st_size < CACHED_FROM:
        return _sha256(path)
    key = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0{status.st_ino}"
    entry = cache_root() / "digests" / hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
    try:
        known = entry.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        known = ""
    if len(known) == 64 and set(known) <= set("0123456789abcdef"):
        return known
    found = _sha256(path)
    after = path.stat()
    unchanged = (after.st_size, after.st_mtime_ns, after.st_ctime_ns) == (
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
    if unchanged and time.time() - max(after.st_mtime, after.st_ctime) > SETTLED_S:
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(entry, found.encode("ascii"))
        except OSError:
            log.debug("cannot cache the digest of %s in %s", path, entry)  # it is computed again next time
    return found


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
