# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of a server process for a test."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

MAIN = ("-m", "dreamwright.backend.cli.main")


def serve_command(state: Path, *options: str, program: Sequence[str] = MAIN) -> list[str]:
    """`dreamwright serve` on the CPU and a free loopback port; `program`: Python's arguments that name the code."""
    address = ("--address", "tcp://127.0.0.1:*")
    return [sys.executable, *program, "serve", *address, "--state", str(state), "--device", "cpu", *options]
