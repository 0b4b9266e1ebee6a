# SPDX-License-Identifier: GPL-3.0-or-later
"""The folders that were given to `dreamwright models download --to`, by model, so that models are found there again."""

from __future__ import annotations

import json
from pathlib import Path

from dreamwright.shared.atomic import write_atomically

from .json_files import parse_json
from .user_folders import models_root

PLACES = "places.json"  # in the folder of models


def remember_folder(name: str, folder: Path) -> None:
    """Remember that a named model lies in a folder of the user's choice. Raises OSError."""
    remembered = remembered_folders()
    remembered[name] = str(folder.resolve())
    path = models_root() / PLACES
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(remembered, indent=1, sort_keys=True).encode())


def remembered_folders() -> dict[str, str]:
    """Folders that were given to `--to`, by model; {} when the file cannot be read: a model can be given by folder."""
    try:
        content = parse_json(models_root() / PLACES)
    except (OSError, ValueError):
        return {}
    return {str(name): str(folder) for name, folder in content.items()} if isinstance(content, dict) else {}
