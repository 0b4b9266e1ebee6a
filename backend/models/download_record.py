# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a download in a model folder: its repository and revision, and the size and hash of each file.

The record lies in the folder (`.dreamwright/download.json`), so a copy of the folder includes it. Folders that other
tools downloaded have none; the hub's own cache and `hf download --local-dir` leave hashes in file names and metadata
files, which `hub_hash` reads.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .record_file import PRIVATE, HubFile, read_record_file, write_record_file


@dataclass(frozen=True)
class DownloadRecord:
    """One download; `complete` once every file is in place with the right hash."""

    repo_id: str
    revision: str  # the commit
    requested: str  # the revision that was named: a commit, a branch or a tag
    complete: bool
    files: tuple[HubFile, ...]


def record_path(folder: Path) -> Path:
    """The path of a folder's record, whether it exists or not."""
    return folder / PRIVATE / "download.json"


def read_record(folder: Path) -> DownloadRecord | None:
    """The folder's record, None where there is none. Raises ModelError when it cannot be read."""
    return read_record_file(
        record_path(folder),
        DownloadRecord,
        "the download's record",
        "delete that file and download the model again",
    )


def write_record(folder: Path, record: DownloadRecord) -> None:
    """Write the record atomically. Raises OSError."""
    write_record_file(record_path(folder), record)


def hub_hash(folder: Path, path: Path) -> HubFile | None:
    """The file's hash as huggingface_hub left it on the disk, None where it left none.

    In its cache a file is a link to a blob that is named by the hash; below a `--local-dir` the second line of a
    metadata file is the hash.
    """
    relative = path.relative_to(folder)
    etag = ""
    if path.is_symlink():
        target = Path(os.readlink(path))
        etag = target.name if target.parent.name == "blobs" else ""
    note = folder / ".cache" / "huggingface" / "download" / relative.parent / f"{relative.name}.metadata"
    if not etag and note.is_file():
        lines = note.read_text(encoding="utf-8", errors="replace").splitlines()
        etag = lines[1].strip() if len(lines) > 1 else ""
    if not set(etag) <= set("0123456789abcdef") or len(etag) not in (40, 64) or not path.is_file():
        return None
    size = path.stat().st_size
    return (
        HubFile(relative.as_posix(), size, sha256=etag)
        if len(etag) == 64
        else HubFile(relative.as_posix(), size, git_sha1=etag)
    )
