# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of an import in a model folder: the checkpoint that it was made from, and size and hash of each file.

It lies in the folder (`.dreamwright/import.json`) as a download's record does.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from dreamwright.shared.atomic import write_atomically

from ..errors import ModelError
from .download_record import PRIVATE, HubFile, is_inside


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
    path = import_record_path(folder)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files = tuple(HubFile(**file) for file in content.pop("files"))
        if not all(is_inside(file.path) for file in files):
            raise ValueError("a path out of the folder")
        return ImportRecord(files=files, **content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"cannot read the import's record {path} ({type(error).__name__}); delete that file, or import the "
            "checkpoint again"
        ) from error


def write_import_record(folder: Path, record: ImportRecord) -> None:
    """Write the record atomically. Raises OSError."""
    path = import_record_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(record), indent=1).encode())
