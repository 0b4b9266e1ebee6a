# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON files of a model folder; each holds one object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import ModelError, one_line

LARGEST = 64 * 2**20  # bytes; the largest published tokenizer.json have 35 MB


def parse_json(path: Path) -> Any:
    """The content of a JSON file. Raises OSError, and ValueError for no JSON, too large or too deep a one."""
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"more than {LARGEST} bytes")
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError when the file cannot be read or holds anything else."""
    try:
        content = parse_json(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {one_line(error)}; download the model again, whole") from error
    if not isinstance(content, dict):
        raise ModelError(
            f"{path} holds a {type(content).__name__}; needed is an object; download the model again, whole"
        )
    return content


def json_error(path: Path) -> str:
    """What is wrong with a JSON file, "" for nothing."""
    try:
        parse_json(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError:
        return "is no readable JSON"
    return ""
