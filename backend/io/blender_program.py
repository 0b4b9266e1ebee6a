# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding a Blender that runs a script: the module of this Python, a program on PATH, or one that is named."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from ..errors import DreamwrightError


class BlenderError(DreamwrightError):
    """There is no Blender."""


def blender_command(given: Path | None) -> list[str]:
    """The command that runs a script in a Blender, up to the script's path. Raises BlenderError."""
    program = str(given) if given else None
    if program is None and importlib.util.find_spec("bpy") is not None:
        return [sys.executable, "-B"]
    program = program or shutil.which("blender")
    if program is None or not Path(program).exists():
        raise BlenderError(
            f"there is no Blender{' at ' + program if program else ''}; install it as a module with "
            'pip install "dreamwright[blender]", or name a program with --blender'
        )
    return [program, "--background", "--factory-startup", "--python-exit-code", "1", "--python"]


def blender_variables(resources: Path) -> dict[str, str]:
    """Environment variables with a user folder of its own, so that the user's Blender is neither read nor changed."""
    for part in ("config", "scripts", "datafiles"):
        (resources / part).mkdir(parents=True, exist_ok=True)
    return {**os.environ, "BLENDER_USER_RESOURCES": str(resources)}


def own_folder_first(program: str, variables: Mapping[str, str]) -> dict[str, str]:
    """The variables with the program's folder at the start of PATH.

    A Blender of a Linux distribution uses the libraries of the first python3 on PATH, which under pyenv or in a virtual
    environment is another one, often without numpy.
    """
    folders = [str(Path(program).absolute().parent), *filter(None, [variables.get("PATH", "")])]
    return {**variables, "PATH": os.pathsep.join(folders)}
