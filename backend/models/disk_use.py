# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes of models on the disk: whole ones, unfinished downloads, and the room that is left."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..errors import ModelError
from .download_record import read_record
from .record_file import partial_bytes

SPARE_BYTES = 64 * 2**20  # left free on the disk, so that the machine goes on working


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder; a link counts as the file that it leads to."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # removed meanwhile
            continue
    return total


def received_bytes(folder: Path) -> tuple[int, int]:
    """(received, total) bytes of an unfinished download; (0, 0) without a record."""
    try:
        record = read_record(folder)
    except ModelError:
        return 0, 0
    if record is None:
        return 0, 0
    received = sum(
        file.size if (folder / file.path).is_file() else partial_bytes(folder, file) for file in record.files
    )
    return received, sum(file.size for file in record.files)


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk that a folder is on, or will be on once it is made. Raises OSError."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free
