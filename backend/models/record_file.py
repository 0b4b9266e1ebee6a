# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that a record in a model folder lists, with size and hash, and the record's JSON file itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from dreamwright.shared.atomic import write_atomically

from ..errors import ModelError
from .json_files import parse_json

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


def partial_path(folder: Path, file: HubFile) -> Path:
    """Where a file grows while it is received, in its model's folder: it is named by its hash."""
    return folder / PRIVATE / "parts" / (file.sha256 or file.git_sha1)


def partial_bytes(folder: Path, file: HubFile) -> int:
    """Bytes of a file that an earlier run received; 0 for more than the file has."""
    try:
        size = partial_path(folder, file).stat().st_size
    except OSError:
        return 0
    return size if size <= file.size else 0


R = TypeVar("R")


def read_record_file(path: Path, kind: Callable[..., R], what: str, remedy: str) -> R | None:
    """The record at `path`, a dataclass with the field `files`; None where there is none.

    Raises ModelError, with `what` it is and the `remedy`.
    """
    try:
        content = parse_json(path)
        files = tuple(HubFile(**file) for file in content.pop("files"))
        if not all(is_inside(file.path) for file in files):
            raise ValueError("a path out of the folder")
        return kind(files=files, **content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"cannot read {what} {path} ({type(error).__name__}); {remedy}") from error


def write_record_file(path: Path, record: Any) -> None:
    """Write the dataclass atomically. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(record), indent=1).encode())


def is_inside(path: str) -> bool:
    """Whether a path with "/" names something below its folder on every system."""
    parts = path.split("/")
    return all(part not in ("", ".", "..") and not set(part) & set('\\:*?"<>|') for part in parts)
