# SPDX-License-Identifier: GPL-3.0-or-later
"""What a suite leaves in its folder: a table, its JSON record, and a contact sheet."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image


def write_table(folder: Path, name: str, table: str, record: object) -> None:
    """Print the table, and `save_table` it. Raises ConfigError and ExportError."""
    save_table(folder, name, table, record)
    print(table, end="")


def save_table(folder: Path, name: str, table: str, record: object) -> None:
    """Write the table as NAME.md and its record as NAME.json. Raises ConfigError and ExportError."""
    from ...evaluation.run_settings import make_folder
    from ...io.output_files import write_output

    make_folder(folder)
    write_output(folder / f"{name}.json", (json.dumps(record, indent=2) + "\n").encode())
    write_output(folder / f"{name}.md", table.encode())


def write_sheet(folder: Path, name: str, sheet: Image.Image) -> None:
    """Write the contact sheet as NAME.png. Raises ExportError."""
    from ...evaluation.contact_sheet import png_of
    from ...io.output_files import write_output

    write_output(folder / f"{name}.png", png_of(sheet))
    print(f"{folder / name}.json, .md and .png are written", file=sys.stderr)


def weights_line(plan: Mapping[str, Any]) -> str:
    """The line below a table that names the weights of its results."""
    weights = ", ".join(f"{file} {digest}" for file, digest in plan["weights"].items())
    return f"Model {plan['model']}: {weights}."
