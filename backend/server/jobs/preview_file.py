# SPDX-License-Identifier: GPL-3.0-or-later
"""The newest preview of a job in its folder: a `PreviewFrame` message, written when an attempt ends."""

from __future__ import annotations

from pathlib import Path

from dreamwright.shared import limits
from dreamwright.shared.atomic import write_atomically
from dreamwright.shared.codec import pack, unpack
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.messages import PreviewFrame

PREVIEW_FILE = "preview.msgpack"


def write_preview(folder: Path, frame: PreviewFrame) -> None:
    """Write a preview to a job's folder. Raises OSError."""
    write_atomically(folder / PREVIEW_FILE, pack(frame, 0))


def read_preview(folder: Path) -> PreviewFrame | None:
    """The preview in a job's folder; None when there is none, or another version of Dreamwright wrote it."""
    try:
        _, frame = unpack((folder / PREVIEW_FILE).read_bytes(), limits.REPLY_BYTES)
    except (OSError, ProtocolError):
        return None
    return frame if isinstance(frame, PreviewFrame) else None
