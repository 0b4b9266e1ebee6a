# SPDX-License-Identifier: GPL-3.0-or-later
"""The user's folders for downloaded models and caches, by the platform's conventions or environment variables."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def models_root() -> Path:
    """The folder that models are downloaded to: DREAMWRIGHT_MODELS, or `models` in the user's data folder."""
    chosen = os.environ.get("DREAMWRIGHT_MODELS")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("dreamwright", False)) / "models"


def cache_root() -> Path:
    """The folder of all caches, which can be deleted at any time: DREAMWRIGHT_CACHE, or the user's cache folder."""
    chosen = os.environ.get("DREAMWRIGHT_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("dreamwright", False))
