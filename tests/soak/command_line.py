# SPDX-License-Identifier: GPL-3.0-or-later
"""What the command lines of all soaks share: the folder to work in, and how results and faults are printed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def soak_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with `--folder`, the work folder of a soak; `description` is shown as it is formatted."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new or empty folder")
    return parser


def print_results(figures: Mapping[str, Any], faults: Sequence[str]) -> int:
    """Print the figures as JSON and a line per fault; the exit status: 1 with any fault, else 0."""
    print(json.dumps(figures, indent=1))
    print(f"{len(faults)} faults", *faults, sep="\n")
    return 1 if faults else 0
