# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON files of a model folder; each holds one object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import ModelError, one_line


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError when the file cannot be read or holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"cannot read {path}: {one_line(error)}; download the model again, whole") from error
    if not isinstance(content, dict):
        raise ModelError(
            f"{path} holds a {type(content).__name__}; needed is an object; download the model again, whole"
        )
    return content


def json_error(path: Path) -> str:
    """What is wrong with a JSON file, "" for nothing."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError:
        return "is no readable JSON"
    return ""
