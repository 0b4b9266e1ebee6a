# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of `dreamwright top` as plain text."""

from __future__ import annotations

import io

from rich.console import Console

from dreamwright.backend.cli import status_table
from dreamwright.shared.status import ServerStatus


def rendered_table(status: ServerStatus, width: int = 120, height: int | None = None) -> str:
    """What a terminal of `width` columns (and `height` rows, if given) shows of the status."""
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=False).print(status_table.status_view(status, "tcp://h:1", height))
    return stream.getvalue()
