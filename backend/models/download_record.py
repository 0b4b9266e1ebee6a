# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a download in a model folder: its repository and revision, and the size and hash of each file.

The record lies in the folder (`.dreamwright/download.json`), so a copy of the folder includes it. Folders that other
tools downloaded have none; the hub's own cache and `hf download --local-dir` leave hashes in file names and metadata
files, which `hub_hash` reads.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from dreamwright.shared.atomic import write_atomically

from ..errors import ModelError

PRIVATE = ".dreamwright"  # our own folder inside a model folder
BLOCK = 2**20


@dataclass(frozen=True)
class HubFile:
    """One file as the hub describes it; `sha256` of its content for large files, git's blob id for small ones."""

    path: str  # in the repository, with "/"
    size: int  # bytes
    sha256: str = ""
    git_sha1: str = ""

    def mismatch(self, path: Path, count: Callable[[int], object] = lambda read: None) -> str:
        """What is wrong with the copy at `path`, "" for nothing; `count` is called with numbers of bytes read."""
        try:
            size = path.stat().st_size
            if size != self.size:
                return (
                    f"is cut off: {size} of {self.size} bytes"
                    if size < self.size
                    else f"has {size} bytes, not {self.size}"
                )
            digest = hashlib.sha256() if self.sha256 else hashlib.sha1(b"blob %d\0" % size)
            with open(path, "rb") as stream:
                while block := stream.read(BLOCK):
                    digest.update(block)
                    count(len(block))
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        wanted = self.sha256 or self.git_sha1
        return "differs from the record: its hash is another" if wanted and digest.hexdigest() != wanted else ""


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
    path = record_path(folder)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files = tuple(HubFile(**file) for file in content.pop("files"))
        record = DownloadRecord(files=files, **content)
        if any(not is_inside(file.path) for file in files):
            raise ValueError("a path out of the folder")
        return record
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"cannot read the download's record {path} ({type(error).__name__}); delete that file and download the "
            "model again"
        ) from error


def write_record(folder: Path, record: DownloadRecord) -> None:
    """Write the record atomically. Raises OSError."""
    path = record_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(record), indent=1).encode())


def is_inside(path: str) -> bool:
    """Whether a path with "/" names something below its folder on every system."""
    parts = path.split("/")
    return all(part not in ("", ".", "..") and not set(part) & set('\\:*?"<>|') for part in parts)


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
