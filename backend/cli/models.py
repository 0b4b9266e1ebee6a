# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright models`: the models by name, which of them are on this machine, and how to get the others."""

from __future__ import annotations

import argparse
from typing import Any


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments: none."""
    return subparsers.add_parser("models", help="list the models", description=__doc__)


def run(options: argparse.Namespace) -> int:
    """Print the table."""
    from dreamwright.backend.models import known_models

    for model in known_models():
        print(f"{model.name}: {model.summary}")
        print(f"    licence: {model.licence}; memory: about {model.memory_gb:g} GB, {model.text_encoder_gb:g} GB while reading the prompt")
        print(f"    here: {model.folder}" if model.available else f"    not here: {model.how_to_get}")
    print("Any folder with a diffusers pixel-space text-to-image pipeline works as well: --model FOLDER")
    return 0
