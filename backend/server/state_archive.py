# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of a backup: a plain tar (ustar) of regular files, with their SHA-256 in its last member.

Any tar reads it. Reading it here takes nothing but regular files with plain names, one by one, each bounded: no links,
no devices, no absolute paths, no extension headers.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

from ..errors import ConfigError

MANIFEST = "manifest.json"
FORM = 1  # version of the archive's format
MAX_MANIFEST_BYTES, MAX_FILES, MAX_DEPTH = 256_000_000, 1_000_000, 6
MAX_TIME_S = 1 << 33  # what a plain header holds
PIECE = 1 << 20  # bytes read at once
COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_BLOCK = tarfile.BLOCKSIZE


def is_plain_name(name: str) -> bool:
    """Whether a member's name is a relative path of plain components: none begins with a dot, a drive or a slash."""
    parts = name.split("/")
    return len(parts) <= MAX_DEPTH and all(COMPONENT.fullmatch(part) for part in parts)


def write_archive(stream: IO[bytes], folder: Path, names: Iterable[str], about: dict[str, Any]) -> int:
    """Write files of a folder, then the manifest with their sizes and SHA-256 and `about`; the number of files.

    A file that grows meanwhile is written as long as it was when it was opened. Raises OSError, and ConfigError for a
    file that tar's plain form cannot hold.
    """
    files: dict[str, list[Any]] = {}
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in names:
            with (folder / name).open("rb") as source:
                status = os.fstat(source.fileno())
                hashed = _HashingReader(source)
                try:
                    archive.addfile(_header(name, status.st_size, status.st_mtime), hashed)
                except ValueError as error:  # a name or a size that has no room in a header
                    raise ConfigError(f"{folder / name} cannot be in a backup: {error}") from error
            files[name] = [status.st_size, hashed.sha256.hexdigest()]
        data = json.dumps({"form": FORM, **about, "files": files}).encode()
        archive.addfile(_header(MANIFEST, len(data), 0), io.BytesIO(data))
    return len(files)


def read_archive(path: Path, target: Path) -> dict[str, Any]:
    """Write the files of an archive into a new folder, and check them against its manifest, which is returned.

    Raises ConfigError for anything that `write_archive` does not write, and OSError; the folder is then incomplete.
    """
    found: dict[str, list[Any]] = {}
    with path.open("rb") as stream:
        while True:
            header = _next_header(stream, path)
            if header is None:
                _refuse(path, "it ends before its list of files")
            if header.name == MANIFEST:
                manifest = _manifest(stream, header.size, path)
                break
            if not is_plain_name(header.name) or header.name in found or len(found) >= MAX_FILES:
                _refuse(path, f"it has a member named {header.name[:100]!r}")
            free = shutil.disk_usage(target).free
            if header.size > free:
                raise ConfigError(
                    f"{path} holds a file of {header.size} bytes and {target.parent} has {free} bytes free; make room"
                )
            for folder in reversed(PurePosixPath(header.name).parents):
                (target / folder).mkdir(mode=0o700, exist_ok=True)  # each: with parents=True they would be open
            found[header.name] = [header.size, _copy(stream, header.size, target / header.name, path)]
            if 0 <= header.mtime < MAX_TIME_S:
                os.utime(target / header.name, (header.mtime, header.mtime))
    if manifest["files"] != found:
        wrong = sorted(name for name in {*manifest["files"], *found} if manifest["files"].get(name) != found.get(name))
        _refuse(path, f"{len(wrong)} of its files are damaged, missing or not listed, the first is {wrong[0]!r}")
    return manifest


def _header(name: str, size: int, mtime: float) -> tarfile.TarInfo:
    """A member that says nothing of the user who wrote it."""
    if not is_plain_name(name):
        raise ValueError(f"its name is {name!r}")
    header = tarfile.TarInfo(name)
    header.size, header.mtime, header.mode = size, int(mtime), 0o600
    return header


def _next_header(stream: IO[bytes], path: Path) -> tarfile.TarInfo | None:
    """The next member; None at the archive's end."""
    block = stream.read(_BLOCK)
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except tarfile.HeaderError as error:
        if not block.strip(b"\0"):
            return None
        raise ConfigError(
            f"{path} is not a backup that dreamwright state wrote ({error}); give one; nothing was written"
        ) from error
    except (UnicodeDecodeError, ValueError):
        _refuse(path, "a member's header is not valid")
    if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or header.size < 0:
        _refuse(path, f"the member {header.name[:100]!r} is no regular file")
    return header


def _copy(stream: IO[bytes], size: int, target: Path, path: Path) -> str:
    """Copy a member's bytes into a new file of mode 0600; their SHA-256."""
    hashed = hashlib.sha256()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with open(descriptor, "wb") as file:
        left = size
        while left:
            piece = stream.read(min(PIECE, left))
            if not piece:
                _refuse(path, "it is cut off")
            hashed.update(piece)
            file.write(piece)
            left -= len(piece)
        file.flush()
        os.fsync(file.fileno())
    stream.seek(-size % _BLOCK, os.SEEK_CUR)
    return hashed.hexdigest()


def _manifest(stream: IO[bytes], size: int, path: Path) -> dict[str, Any]:
    if size > MAX_MANIFEST_BYTES:
        _refuse(path, f"its list of files has {size} bytes; allowed are {MAX_MANIFEST_BYTES}")
    try:
        content = json.loads(stream.read(size))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        _refuse(path, "its list of files is damaged")
    if content.get("form") != FORM:
        raise ConfigError(
            f"{path} has form {content.get('form')!r}, this Dreamwright knows {FORM}; restore it with the version that "
            "wrote it"
        )
    return content


def _refuse(path: Path, reason: str) -> NoReturn:
    raise ConfigError(f"{path} cannot be restored: {reason}; give another backup; nothing was written")


class _HashingReader:
    """A binary file that keeps the SHA-256 of what is read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data = self._file.read(size)
        self.sha256.update(data)
        return data
