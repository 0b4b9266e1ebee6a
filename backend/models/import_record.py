# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of an import in a model folder: the checkpoint that it was made from, and size and hash of each file.

It lies in the folder (`.dreamwright/import.json`) as a download's record does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .record_file import PRIVATE, HubFile, read_record_file, write_record_file


@dataclass(frozen=True)
class ImportRecord:
    """One import. `like` is the named model of the same size, whose memory it takes."""

    source: str  # the checkpoint's file name
    sha256: str  # of the checkpoint
    size: int  # bytes of the checkpoint
    family: str
    prediction: str
    like: str
    diffusers: str  # the version whose converter made it
    files: tuple[HubFile, ...]


def import_record_path(folder: Path) -> Path:
    """The path of a folder's record, whether it exists or not."""
    return folder / PRIVATE / "import.json"


def read_import_record(folder: Path) -> ImportRecord | None:
    """The folder's record, None where there is none. Raises ModelError when it cannot be read."""
    return read_record_file(
        import_record_path(folder),
        ImportRecord,
        "the import's record",
        "delete that file, or import the checkpoint again",
    )


def write_import_record(folder: Path, record: ImportRecord) -> None:
    """Write the record atomically. Raises OSError."""
    write_record_file(import_record_path(folder), record)
