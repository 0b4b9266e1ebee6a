# SPDX-License-Identifier: GPL-3.0-or-later
"""The LoRAs that a setting names: their weights, their files on this machine, and what identifies them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from dreamwright.shared.limits import NAME_CHARACTERS
from dreamwright.shared.numbers import number_text

from ..errors import ConfigError, ModelError
from .fingerprint import file_digest
from .user_folders import models_root

MAX_WEIGHT = 10.0
SEPARATOR = ";"
SUFFIX = ".safetensors"
LORA_FOLDER = "DREAMWRIGHT_LORAS"  # environment variable
MOST_OFFERED = 200  # of a folder, in the capabilities of a server


def lora_folder() -> Path:
    """The folder in which a LoRA is found by its name: DREAMWRIGHT_LORAS, or `loras` beside the models."""
    chosen = os.environ.get(LORA_FOLDER)
    return Path(chosen).expanduser() if chosen else models_root() / "loras"


def use_lora_folder(folder: Path) -> None:
    """Find LoRAs by name in this folder, in this process and those that it starts. Raises ConfigError for none."""
    if not folder.is_dir():
        raise ConfigError(f"--loras {str(folder)!r} is no folder; allowed is one with .safetensors files; give another")
    os.environ[LORA_FOLDER] = str(folder.absolute())


def offered_loras() -> tuple[str, ...]:
    """Names of the LoRAs of `lora_folder`, in order, as a setting may give them; others are left out."""
    try:
        files = sorted(path for path in lora_folder().glob(f"*{SUFFIX}") if path.is_file())
    except OSError:  # a folder that cannot be read offers nothing
        return ()
    names = (path.name.removesuffix(SUFFIX) for path in files)
    fitting = (name for name in names if not name.startswith(".") and not {SEPARATOR, ":"} & set(name))
    return tuple(name for name in fitting if 0 < len(name) <= NAME_CHARACTERS)[:MOST_OFFERED]


def parse_loras(text: str) -> tuple[tuple[str, float], ...]:
    """ "FILE:0.8; NAME" -> (("FILE", 0.8), ("NAME", 1.0)). Raises ConfigError for a weight that is none."""
    chosen = []
    for item in filter(None, (part.strip() for part in text.split(SEPARATOR))):
        name, colon, tail = item.rpartition(":")
        try:
            given, weight = (name, float(tail)) if colon and name else (item, 1.0)
        except ValueError:  # a colon of the path
            given, weight = item, 1.0
        if not math.isfinite(weight) or abs(weight) > MAX_WEIGHT:
            raise ConfigError(
                f"the LoRA {given} has weight {number_text(weight)}; allowed are {number_text(-MAX_WEIGHT)} to "
                f"{number_text(MAX_WEIGHT)}; write FILE:0.8"
            )
        chosen.append((given, weight))
    return tuple(chosen)


def find_lora(given: str, names_only: bool = False) -> Path:
    """The file of a LoRA: a path, else a name in `lora_folder`. Raises ModelError.

    `names_only`: nothing but a name, for users who may not learn about the disk.
    """
    named = Path(given).name == given and not given.startswith(".")
    places = [] if names_only else [Path(given).expanduser()]
    if named:
        places += [lora_folder() / given, lora_folder() / f"{given}{SUFFIX}"]
    for place in places:
        try:
            if place.is_file():
                return place
        except OSError:  # a name that no file can have
            continue
    if names_only:
        raise ModelError(
            f"there is no LoRA {given!r} on this machine; allowed are names of files in the folder loras beside its "
            "models, where its admin puts them"
        )
    raise ModelError(f"there is no LoRA {given!r}; give a .safetensors file, or the name of one in {lora_folder()}")


def lora_digests(text: str) -> tuple[str, ...]:
    """ "SHA-256 weight" of each LoRA of the setting, sorted: what they do does not depend on names and order.

    Raises ConfigError and ModelError.
    """
    return tuple(sorted(f"{file_digest(find_lora(given))} {weight!r}" for given, weight in parse_loras(text)))


def join_loras(given: Sequence[str]) -> str:
    """The setting for several "FILE:weight". Raises ConfigError for a path that holds the separator, or a weight."""
    for item in given:
        if SEPARATOR in item or not item.strip():
            raise ConfigError(
                f"--lora {item!r} cannot be read; allowed is FILE or FILE:WEIGHT, one for each --lora, without "
                f"{SEPARATOR!r}; give it again, or rename the file"
            )
        parse_loras(item)
    return SEPARATOR.join(given)
